/* Greedy tokens of a llama.cpp of other hands, steered by libtiller as a guest.
 *
 *     hands plain|shim|probe MODEL DICTIONARY PLAN N TOKEN...
 *
 * `plain` steers nothing; `shim` sees ggml through tiller_llama.h as compiled against this llama.cpp's headers, `probe`
 * through tiller_ggml_probe(), whose layout is compared with these headers. The prompt is given as tokens, so that no
 * tokenizer matters. Compile it with -DMID_2024 where the functions have the names of that time. */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

#include "tiller_llama.h"

#ifdef MID_2024
#define llama_model_load_from_file llama_load_model_from_file
#define llama_init_from_model llama_new_context_with_model
#define llama_model_free llama_free_model
#define N_VOCAB(model) llama_n_vocab(model)
#else
#define N_VOCAB(model) llama_vocab_n_tokens(llama_model_get_vocab(model))
#endif

static void check(tiller_status status, tiller_error **err) {
    if (status == TILLER_OK) return;
    fprintf(stderr, "error: %s\n", *err ? tiller_error_message(*err) : "llama.cpp refuses");
    exit(1);
}

static void require(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "error: %s\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user) {
    (void) user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static tiller_ggml probed(void) {
    tiller_error *err = NULL;
    tiller_ggml ggml;
    ggml.size = sizeof ggml;
    check(tiller_ggml_probe(dlsym, RTLD_DEFAULT, &ggml, &err), &err);
    const tiller_ggml_layout *at = &ggml.layout;
    require(at->tensor_size == sizeof(struct ggml_tensor), "the probe's size is not the header's");
    require(at->dtype == offsetof(struct ggml_tensor, type), "the probe's type is not the header's");
    require(at->shape == offsetof(struct ggml_tensor, ne), "the probe's ne is not the header's");
    require(at->src == offsetof(struct ggml_tensor, src), "the probe's src is not the header's");
    require(at->n_src == GGML_MAX_SRC, "the probe's number of src is not the header's");
    require(at->data == offsetof(struct ggml_tensor, data), "the probe's data is not the header's");
    require(at->buffer == offsetof(struct ggml_tensor, buffer), "the probe's buffer is not the header's");
    require(at->view_src == offsetof(struct ggml_tensor, view_src), "the probe's view_src is not the header's");
    return ggml;
}

/* Computes `n` tokens from `position` on; the most likely next one. */
static llama_token next(
    struct llama_context *context, tiller_hook *hook, const llama_token *tokens, int n, int position, int n_vocab
) {
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int i = 0; i < n; i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = position + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i == n - 1;
    }
    tiller_error *err = NULL;
    check(tiller_llama_announce(hook, &batch, position == 0 ? n : 0, &err), &err);
    require(llama_decode(context, batch) == 0, "llama_decode");
    const float *logits = llama_get_logits_ith(context, n - 1);
    llama_token best = 0;
    for (int i = 1; i < n_vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    llama_batch_free(batch);
    return best;
}

int main(int argc, char **argv) {
    require(argc > 6, "usage: hands plain|shim|probe MODEL DICTIONARY PLAN N TOKEN...");
    const char *how = argv[1];
    const int n_new = atoi(argv[5]), n_prompt = argc - 6;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    /* Where each processor has a backend in a library of its own, these are loaded first. */
    void *load = dlsym(RTLD_DEFAULT, "ggml_backend_load_all_from_path");
    const char *backends = getenv("HANDS_BACKENDS");
    if (load && backends && *backends) ((void (*)(const char *)) load)(backends);

    struct llama_model_params file = llama_model_default_params();
#ifdef MID_2024
    /* It does not know this model's way to split words, which nobody needs here. */
    struct llama_model_kv_override overrides[2];
    memset(overrides, 0, sizeof overrides);
    overrides[0].tag = LLAMA_KV_OVERRIDE_TYPE_STR;
    strcpy(overrides[0].key, "tokenizer.ggml.pre");
    strcpy(overrides[0].val_str, "gpt-2");
    file.kv_overrides = overrides;
#endif
    struct llama_model *model = llama_model_load_from_file(argv[2], file);
    require(model != NULL, "cannot load the model");
    tiller_error *err = NULL;
    tiller_dictionary *dictionary = NULL;
    tiller_plan *plan = NULL;
    tiller_compiled *compiled = NULL;
    check(tiller_dictionary_open(argv[3], &dictionary, &err), &err);
    check(tiller_plan_open(argv[4], &plan, &err), &err);
    const tiller_named named = {"", dictionary};
    char architecture[64];
    const tiller_target target = tiller_llama_target(model, architecture, sizeof architecture);
    check(tiller_plan_compile(plan, &named, 1, &target, 0, &compiled, &err), &err);
    require(tiller_compiled_needs_callback(compiled) && tiller_compiled_control_vector_length(compiled) > 0,
            "the plan needs both the callback and a control vector");

    const tiller_ggml ggml = strcmp(how, "probe") == 0 ? probed() : tiller_llama_ggml();
    tiller_hook *hook = NULL;
    check(tiller_hook_new(&ggml, &hook, &err), &err);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_threads = params.n_threads_batch = 1;
    tiller_llama_install(&params, hook);
    struct llama_context *context = llama_init_from_model(model, params);
    require(context != NULL, "cannot make a context");
    check(tiller_llama_set_plan(context, model, hook, strcmp(how, "plain") ? compiled : NULL, &err), &err);

    llama_token *prompt = (llama_token *) malloc((size_t) n_prompt * sizeof *prompt);
    for (int i = 0; i < n_prompt; i++) prompt[i] = atoi(argv[6 + i]);
    llama_token token = next(context, hook, prompt, n_prompt, 0, N_VOCAB(model));
    for (int i = 0; i < n_new; i++) {
        printf("%d%c", token, i + 1 < n_new ? ' ' : '\n');
        if (i + 1 < n_new) token = next(context, hook, &token, 1, n_prompt + i, N_VOCAB(model));
    }
    tiller_report report;
    report.size = sizeof report;
    check(tiller_hook_finish(hook, &report, &err), &err);
    printf("%llu rows seen, %llu edited, %llu refused\n", (unsigned long long) report.rows_seen,
           (unsigned long long) report.rows_edited, (unsigned long long) report.rows_refused);

    free(prompt);
    llama_free(context);
    llama_model_free(model);
    tiller_hook_free(hook);
    tiller_compiled_free(compiled);
    tiller_plan_free(plan);
    tiller_dictionary_free(dictionary);
    return 0;
}
