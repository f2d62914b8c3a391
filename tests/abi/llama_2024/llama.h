/* What tiller_llama.h uses of llama.h, as it was in mid-2024. */
#ifndef LLAMA_H
#define LLAMA_H

#include "ggml-backend.h"
#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct llama_model;
struct llama_context;
typedef int32_t llama_pos;
typedef int32_t llama_seq_id;
typedef int32_t llama_token;

typedef struct llama_batch {
    int32_t n_tokens;
    llama_token *token;
    float *embd;
    llama_pos *pos;
    int32_t *n_seq_id;
    llama_seq_id **seq_id;
    int8_t *logits;
    llama_pos all_pos_0;
    llama_pos all_pos_1;
    llama_seq_id all_seq_id;
} llama_batch;

struct llama_context_params {
    uint32_t n_ctx;
    uint32_t n_seq_max;
    ggml_backend_sched_eval_callback cb_eval;
    void *cb_eval_user_data;
};

int32_t llama_n_embd(const struct llama_model *model);
int32_t llama_n_layer(const struct llama_model *model);
int32_t llama_model_meta_val_str(const struct llama_model * model, const char * key, char * buf, size_t buf_size);

int32_t llama_control_vector_apply(
    struct llama_context *ctx, const float *data, size_t len, int32_t n_embd, int32_t il_start, int32_t il_end
);

#ifdef __cplusplus
}
#endif

#endif
