/* tiller_llama.h - tiller inside your own llama.cpp, of mid-2024 to today.
 *
 * Static inline functions, which your compiler builds against your own ggml.h and llama.h; so libtiller depends on the
 * layout of no ggml release. Include it after llama.h, in C or C++. In a program:
 *
 *     char architecture[64];
 *     tiller_target target = tiller_llama_target(model, architecture, sizeof architecture);
 *     tiller_plan_compile(plan, &named, 1, &target, 0, &compiled, &err);
 *     tiller_ggml ggml = tiller_llama_ggml();
 *     tiller_hook_new(&ggml, &hook, &err);
 *     tiller_llama_install(&context_params, hook);            // before llama_init_from_model()
 *     tiller_llama_set_plan(context, model, hook, compiled, &err);  // between any two decodes; NULL steers nothing
 *     ... llama_decode() as ever ...
 *     tiller_hook_finish(hook, &report, &err);                // what was done, and what went wrong
 *
 * Call tiller_llama_announce() before llama_decode() where rules select sequences, or tell the prompt from what the model
 * wrote: nothing else says so. Without it such rules leave rows alone, and tiller_hook_finish() says that they did.
 *
 * llama.cpp renamed functions that are called here, and llama.h has no version that a compiler could ask for. With GCC
 * or Clang on ELF systems the linker finds out. Elsewhere today's names are meant; for an older llama.cpp define
 * TILLER_LLAMA_API:
 *
 *     2024    llama_control_vector_apply(), llama_n_embd()
 *     2025    llama_apply_adapter_cvec(), llama_model_n_embd()
 *     2026    llama_set_adapter_cvec(), llama_model_n_embd()
 */
#ifndef TILLER_LLAMA_H
#define TILLER_LLAMA_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#include "tiller.h"

static inline const char *tiller_llama_name_(const struct ggml_tensor *tensor) {
    return ggml_get_name(tensor);
}

static inline int tiller_llama_dtype_(const struct ggml_tensor *tensor) {
    return (int) tensor->type;
}

static inline void tiller_llama_shape_(const struct ggml_tensor *tensor, int64_t *shape) {
    memcpy(shape, tensor->ne, 4 * sizeof *shape);
}

static inline bool tiller_llama_contiguous_(const struct ggml_tensor *tensor) {
    return ggml_is_contiguous(tensor);
}

static inline void *tiller_llama_data_(const struct ggml_tensor *tensor) {
    ggml_backend_buffer_t buffer = tensor->view_src ? tensor->view_src->buffer : tensor->buffer;
    return buffer && ggml_backend_buffer_is_host(buffer) ? tensor->data : NULL;
}

static inline void tiller_llama_get_(const struct ggml_tensor *tensor, void *to, size_t offset, size_t n) {
    ggml_backend_tensor_get(tensor, to, offset, n);
}

static inline void tiller_llama_set_(struct ggml_tensor *tensor, const void *from, size_t offset, size_t n) {
    ggml_backend_tensor_set(tensor, from, offset, n);
}

static inline const struct ggml_tensor *tiller_llama_src_(const struct ggml_tensor *tensor, int i) {
    return i >= 0 && i < GGML_MAX_SRC ? tensor->src[i] : NULL;
}

static inline const char *tiller_llama_op_(const struct ggml_tensor *tensor) {
    return ggml_op_desc(tensor);
}

// How the hook sees your ggml.
static inline tiller_ggml tiller_llama_ggml(void) {
    tiller_ggml ggml;
    memset(&ggml, 0, sizeof ggml);
    ggml.size = (uint32_t) sizeof ggml;
    ggml.name = tiller_llama_name_;
    ggml.dtype = tiller_llama_dtype_;
    ggml.shape = tiller_llama_shape_;
    ggml.contiguous = tiller_llama_contiguous_;
    ggml.data = tiller_llama_data_;
    ggml.get = tiller_llama_get_;
    ggml.set = tiller_llama_set_;
    ggml.src = tiller_llama_src_;
    ggml.op = tiller_llama_op_;
    return ggml;
}

// Makes the context that is opened next with `params` call `hook`, which belongs to it from then on and must outlive it.
// A draft model's context gets a hook of its own, or none.
//
// A callback splits the graph. Where ggml was built without OpenMP, a context without threads of its own starts them anew
// for every part, some 40 us each: give it some with llama_attach_threadpool().
static inline void tiller_llama_install(struct llama_context_params *params, tiller_hook *hook) {
    params->cb_eval = tiller_hook_eval;
    params->cb_eval_user_data = hook;
    tiller_hook_rebind(hook, NULL);
    tiller_hook_set_sequences(hook, params->n_seq_max, NULL);
}

#if !defined(TILLER_LLAMA_API) && !(defined(__GNUC__) && defined(__ELF__))
#define TILLER_LLAMA_API 2026
#endif

#ifdef TILLER_LLAMA_API

#if TILLER_LLAMA_API >= 2025
#define tiller_llama_n_embd_ llama_model_n_embd
#define tiller_llama_n_layer_ llama_model_n_layer
#else
#define tiller_llama_n_embd_ llama_n_embd
#define tiller_llama_n_layer_ llama_n_layer
#endif
#if TILLER_LLAMA_API >= 2026
#define tiller_llama_set_cvec_ llama_set_adapter_cvec
#elif TILLER_LLAMA_API >= 2025
#define tiller_llama_set_cvec_ llama_apply_adapter_cvec
#else
#define tiller_llama_set_cvec_ llama_control_vector_apply
#endif

#else

// Names of ours for functions that llama.cpp may have or not: a weak symbol that nothing defines is NULL. llama.h
// cannot contradict them, whatever it declares.
#define TILLER_LLAMA_WEAK_(name) __asm__(name) __attribute__((weak))
#ifdef __cplusplus
extern "C" {
#endif
int32_t tiller_llama_n_embd_2025_(const struct llama_model *) TILLER_LLAMA_WEAK_("llama_model_n_embd");
int32_t tiller_llama_n_embd_2024_(const struct llama_model *) TILLER_LLAMA_WEAK_("llama_n_embd");
int32_t tiller_llama_n_layer_2025_(const struct llama_model *) TILLER_LLAMA_WEAK_("llama_model_n_layer");
int32_t tiller_llama_n_layer_2024_(const struct llama_model *) TILLER_LLAMA_WEAK_("llama_n_layer");
int32_t tiller_llama_set_cvec_2026_(struct llama_context *, const float *, size_t, int32_t, int32_t, int32_t)
    TILLER_LLAMA_WEAK_("llama_set_adapter_cvec");
int32_t tiller_llama_set_cvec_2025_(struct llama_context *, const float *, size_t, int32_t, int32_t, int32_t)
    TILLER_LLAMA_WEAK_("llama_apply_adapter_cvec");
int32_t tiller_llama_set_cvec_2024_(struct llama_context *, const float *, size_t, int32_t, int32_t, int32_t)
    TILLER_LLAMA_WEAK_("llama_control_vector_apply");
#ifdef __cplusplus
}
#endif

static inline int32_t tiller_llama_n_embd_(const struct llama_model *model) {
    return tiller_llama_n_embd_2025_ ? tiller_llama_n_embd_2025_(model) : tiller_llama_n_embd_2024_(model);
}

static inline int32_t tiller_llama_n_layer_(const struct llama_model *model) {
    return tiller_llama_n_layer_2025_ ? tiller_llama_n_layer_2025_(model) : tiller_llama_n_layer_2024_(model);
}

static inline int32_t tiller_llama_set_cvec_(
    struct llama_context *context, const float *data, size_t n, int32_t d_model, int32_t first, int32_t last
) {
    if (tiller_llama_set_cvec_2026_) return tiller_llama_set_cvec_2026_(context, data, n, d_model, first, last);
    if (tiller_llama_set_cvec_2025_) return tiller_llama_set_cvec_2025_(context, data, n, d_model, first, last);
    if (tiller_llama_set_cvec_2024_) return tiller_llama_set_cvec_2024_(context, data, n, d_model, first, last);
    return -1;
}

#endif

// What plans for `model` are compiled against. The name of its architecture goes to the `n` chars of `architecture`, which
// the answer points to; tiller_hook_set_architecture() wants it, too, where plans name sites inside a block.
static inline tiller_target
tiller_llama_target(const struct llama_model *model, char *architecture, size_t n) {
    tiller_target target;
    memset(&target, 0, sizeof target);
    target.size = (uint32_t) sizeof target;
    target.n_layer = (uint32_t) tiller_llama_n_layer_(model);
    target.d_model = (size_t) tiller_llama_n_embd_(model);
    const int32_t length = llama_model_meta_val_str(model, "general.architecture", architecture, n);
    if (length > 0 && (size_t) length < n) target.architecture = architecture;
    return target;
}

// Whether a control vector has nothing for a layer.
static inline int tiller_llama_is_zero_(const float *data, int32_t layer, int32_t d_model) {
    const float *row = data + (size_t) (layer - 1) * (size_t) d_model;
    for (int32_t i = 0; i < d_model; i++) {
        if (row[i] != 0.0f) return 0;
    }
    return 1;
}

// Steers `context` by `compiled` from the next decode on: the callback's part goes to `hook`, the control vector's part to
// llama.cpp. NULL stops both. When it fails, nothing has changed. If llama.cpp itself refuses the vector, the answer is
// TILLER_E_UNSUPPORTED and *err is NULL. For the thread that decodes; see tiller_hook_set_plan() for others.
static inline tiller_status tiller_llama_set_plan(
    struct llama_context *context,
    const struct llama_model *model,
    tiller_hook *hook,
    const tiller_compiled *compiled,
    tiller_error **err
) {
    const int32_t d_model = tiller_llama_n_embd_(model), n_layer = tiller_llama_n_layer_(model);
    const size_t n = tiller_compiled_control_vector_length(compiled);
    float *data = n > 0 ? (float *) malloc(n * sizeof *data) : NULL;
    tiller_status status = TILLER_OK;
    if (compiled) status = tiller_compiled_check(compiled, (size_t) n_layer, (size_t) d_model, err);
    if (status == TILLER_OK) status = tiller_hook_check_plan(hook, compiled, err);
    if (status == TILLER_OK && n > 0) status = tiller_compiled_control_vector(compiled, data, data ? n : 0, err);
    // Each call makes llama.cpp plan its memory anew: leave it alone if it has no vector and needs none. The buffer is
    // always the whole one: a shorter one would leave an older vector's rows in place. The graph adds at every layer from
    // the first to the last, so they enclose no more than they must.
    int32_t first = 1, last = n_layer - 1;
    while (n > 0 && first < last && tiller_llama_is_zero_(data, first, d_model)) first++;
    while (n > 0 && first < last && tiller_llama_is_zero_(data, last, d_model)) last--;
    if (status == TILLER_OK && (n > 0 || tiller_hook_has_control_vector(hook)) &&
        tiller_llama_set_cvec_(context, data, n, d_model, first, last) != 0) {
        status = TILLER_E_UNSUPPORTED;
        if (err) *err = NULL;
    }
    free(data);
    return status == TILLER_OK ? tiller_hook_set_plan(hook, compiled, err) : status;
}

// What a batch says of its `i`-th token; positions and sequences that are left to llama.cpp are what it makes of them.
static inline tiller_row tiller_llama_row_(const struct llama_batch *batch, size_t i) {
    tiller_row row;
    memset(&row, 0, sizeof row);
    row.position = batch->pos ? batch->pos[i] : -1;
    row.has_token = batch->token != NULL;
    row.token = batch->token ? batch->token[i] : 0;
    row.sequence = batch->seq_id ? batch->seq_id[i][0] : 0;
    for (int32_t k = 1; batch->seq_id && k < batch->n_seq_id[i]; k++) {
        const int32_t id = batch->seq_id[i][k];
        if (id >= 0 && id < 256) row.shared[id / 64] |= (uint64_t) 1 << (id % 64);
    }
    return row;
}

// Tells `hook` what the next llama_decode() holds; it counts for that decode only. `generated`: for each token of the batch
// whether the model wrote it (drafts of speculative decoding are written, too); NULL where that is not known.
static inline tiller_status tiller_llama_announce_rows(
    tiller_hook *hook,
    const struct llama_batch *batch,
    const bool *generated,
    tiller_error **err
) {
    const size_t n = batch->n_tokens > 0 ? (size_t) batch->n_tokens : 0;
    tiller_row *rows = n > 0 ? (tiller_row *) calloc(n, sizeof *rows) : NULL;
    for (size_t i = 0; rows && i < n; i++) {
        rows[i] = tiller_llama_row_(batch, i);
        rows[i].generated = generated ? generated[i] : 2;
    }
    const tiller_status status = tiller_hook_announce(hook, rows, n, err);
    free(rows);
    return status;
}

// As tiller_llama_announce_rows(). The first `n_given` tokens of the batch were given, the others written by the model.
static inline tiller_status tiller_llama_announce(
    tiller_hook *hook,
    const struct llama_batch *batch,
    int32_t n_given,
    tiller_error **err
) {
    const size_t n = batch->n_tokens > 0 ? (size_t) batch->n_tokens : 0;
    bool *generated = (bool *) calloc(n + 1, sizeof *generated);
    if (!generated) return tiller_hook_announce(hook, NULL, n, err);
    for (size_t i = 0; i < n; i++) generated[i] = (int32_t) i >= n_given;
    const tiller_status status = tiller_llama_announce_rows(hook, batch, generated, err);
    free(generated);
    return status;
}

#endif /* TILLER_LLAMA_H */
