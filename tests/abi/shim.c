/* tiller_llama.h on a llama.cpp of some age: the table, the announcement, a plan that is a control vector. C and C++. */
#include "llama_stub.h"

#include "tiller_llama.h"

#include <stdio.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                     \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

int main(void) {
    float memory[6] = {1, 2, 3, 4, 5, 6};
    struct ggml_tensor positions, tensor, view;
    memset(&positions, 0, sizeof positions);
    memset(&tensor, 0, sizeof tensor);
    tensor.op = 2;
    tensor.ne[0] = 2;
    tensor.ne[1] = 3;
    tensor.ne[2] = tensor.ne[3] = 1;
    tensor.src[1] = &positions;
    tensor.data = memory;
    tensor.buffer = &stub_host;
    strcpy(tensor.name, "l_out-1");
    view = tensor;
    view.buffer = NULL;
    view.view_src = &tensor;

    const tiller_ggml ggml = tiller_llama_ggml();
    int64_t shape[4];
    float row[2];
    ggml.shape(&tensor, shape);
    CHECK(shape[0] == 2 && shape[1] == 3 && shape[2] == 1 && shape[3] == 1);
    CHECK(ggml.dtype(&tensor) == 0 && ggml.contiguous(&tensor) && !ggml.contiguous(&view));
    CHECK(strcmp(ggml.name(&tensor), "l_out-1") == 0);
    CHECK(ggml.src(&tensor, 1) == &positions && !ggml.src(&tensor, 0) && !ggml.src(&tensor, -1));
    CHECK(!ggml.src(&tensor, GGML_MAX_SRC) && strcmp(ggml.op(&tensor), "ADD") == 0);
    CHECK(ggml.data(&tensor) == memory && ggml.data(&view) == memory && !ggml.data(&positions));
    tensor.buffer = &stub_device;
    CHECK(!ggml.data(&tensor) && !ggml.data(&view));
    ggml.get(&tensor, row, 2 * sizeof(float), sizeof row);
    CHECK(row[0] == 3 && row[1] == 4);
    ggml.set(&tensor, row, 0, sizeof row);
    CHECK(memory[0] == 3 && memory[1] == 4 && memory[2] == 3);

    tiller_error *err = NULL;
    tiller_hook *hook = NULL;
    CHECK(tiller_hook_new(&ggml, &hook, &err) == TILLER_OK);
    struct llama_context_params params;
    memset(&params, 0, sizeof params);
    tiller_llama_install(&params, hook);
    CHECK(params.cb_eval == tiller_hook_eval && params.cb_eval_user_data == hook);

    const float rows[2] = {1, 0}, down[2] = {0, 1};
    tiller_dictionary_parts parts;
    memset(&parts, 0, sizeof parts);
    parts.size = sizeof parts;
    parts.d_model = 2;
    parts.n_features = 1;
    parts.encoder = rows;
    parts.decoder = down;
    tiller_dictionary *dictionary = NULL;
    CHECK(tiller_dictionary_new(&parts, &dictionary, &err) == TILLER_OK);
    tiller_plan *plan = NULL;
    const char *json =
        "{\"version\": 1, \"rules\": [{\"op\": \"add\", \"features\": [0], \"strength\": 3, \"layer\": 2}]}";
    CHECK(tiller_plan_parse(json, &plan, &err) == TILLER_OK);
    tiller_compiled *compiled = NULL, *wider = NULL;
    const tiller_named named = {"", dictionary};
    char architecture[8], small[5];
    tiller_target target = tiller_llama_target(&stub_model, architecture, sizeof architecture);
    CHECK(target.n_layer == 3 && target.d_model == 2 && strcmp(target.architecture, "mamba") == 0);
    CHECK(!tiller_llama_target(&stub_model, small, sizeof small).architecture);
    CHECK(tiller_plan_compile(plan, &named, 1, &target, 2, &compiled, &err) == TILLER_OK);
    target.n_layer = 4;
    CHECK(tiller_plan_compile(plan, &named, 1, &target, 2, &wider, &err) == TILLER_OK);

    struct llama_context *c = &stub_context;
    CHECK(tiller_llama_set_plan(c, &stub_model, hook, compiled, &err) == TILLER_OK);
    CHECK(c->calls == 1 && c->n == 4 && c->n_embd == 2 && c->first == 2 && c->last == 2);
    CHECK(c->vector[0] == 0 && c->vector[1] == 0 && c->vector[2] == 0 && c->vector[3] == 3);
    CHECK(tiller_llama_set_plan(c, &stub_model, hook, wider, &err) == TILLER_E_MISMATCH && c->calls == 1);
    tiller_error_free(err);
    CHECK(tiller_llama_set_plan(c, &stub_model, hook, NULL, &err) == TILLER_OK && c->calls == 2 && c->n == 0);
    c->refuses = 1;
    CHECK(tiller_llama_set_plan(c, &stub_model, hook, compiled, &err) == TILLER_E_UNSUPPORTED && c->calls == 2);

    llama_pos pos[2] = {4, 5};
    struct llama_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.n_tokens = 2;
    batch.pos = pos;
    CHECK(tiller_llama_announce(hook, &batch, 1, &err) == TILLER_OK);
    tiller_row said = tiller_llama_row_(&batch, 1);
    CHECK(said.position == 5 && said.sequence == 0 && !said.has_token && !said.shared[0]);
    llama_token tokens[2] = {7, 8};
    llama_seq_id one[1] = {1}, several[3] = {2, 0, 130}, *ids[2] = {one, several};
    int32_t n_ids[2] = {1, 3};
    const bool written[2] = {true, false};
    batch.pos = NULL;
    batch.token = tokens;
    batch.seq_id = ids;
    batch.n_seq_id = n_ids;
    said = tiller_llama_row_(&batch, 1);
    CHECK(said.position == -1 && said.has_token && said.token == 8 && said.sequence == 2);
    CHECK(said.shared[0] == 1 && said.shared[1] == 0 && said.shared[2] == 4 && said.shared[3] == 0);
    CHECK(tiller_llama_announce_rows(hook, &batch, written, &err) == TILLER_OK);
    CHECK(tiller_llama_announce_rows(hook, &batch, NULL, &err) == TILLER_OK);
    one[0] = 256;
    CHECK(tiller_llama_announce_rows(hook, &batch, NULL, NULL) == TILLER_E_ARGUMENT);

    tiller_compiled_free(wider);
    tiller_compiled_free(compiled);
    tiller_plan_free(plan);
    tiller_dictionary_free(dictionary);
    tiller_hook_free(hook);
    return 0;
}
