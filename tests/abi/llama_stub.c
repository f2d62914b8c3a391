/* A llama.cpp that computes nothing: it remembers its control vector. Compiled against the headers of one age, it has
 * the functions of that age and no others. AGE is 2024, 2025 or 2026. */
#include "llama_stub.h"

#include <stdio.h>
#include <string.h>

struct llama_context stub_context;
const struct llama_model stub_model = {3, 2};

#if AGE == 2024
#define N_EMBD llama_n_embd
#define N_LAYER llama_n_layer
#define APPLY llama_control_vector_apply
#else
#define N_EMBD llama_model_n_embd
#define N_LAYER llama_model_n_layer
#define APPLY llama_set_adapter_cvec
#endif
#if AGE == 2025
#undef APPLY
#define APPLY llama_apply_adapter_cvec
#endif

int32_t N_EMBD(const struct llama_model *model) { return model->n_embd; }
int32_t N_LAYER(const struct llama_model *model) { return model->n_layer; }

int32_t llama_model_meta_val_str(const struct llama_model *model, const char *key, char *buf, size_t buf_size) {
    const char *value = model == &stub_model && strcmp(key, "general.architecture") == 0 ? "mamba" : "";
    return snprintf(buf, buf_size, "%s", value);
}

int32_t APPLY(
    struct llama_context *ctx, const float *data, size_t len, int32_t n_embd, int32_t il_start, int32_t il_end
) {
    if (ctx->refuses) return -1;
    ctx->calls++;
    ctx->n = data ? len : 0;
    for (size_t i = 0; i < ctx->n && i < 8; i++) ctx->vector[i] = data[i];
    ctx->n_embd = n_embd;
    ctx->first = il_start;
    ctx->last = il_end;
    return 0;
}

struct ggml_backend_buffer {
    bool host;
};
struct ggml_backend_buffer stub_host = {true}, stub_device = {false};

const char *ggml_get_name(const struct ggml_tensor *tensor) { return tensor->name; }
const char *ggml_op_desc(const struct ggml_tensor *tensor) { return tensor->op == 2 ? "ADD" : "NONE"; }
bool ggml_is_contiguous(const struct ggml_tensor *tensor) { return tensor->view_src == NULL; }
bool ggml_backend_buffer_is_host(ggml_backend_buffer_t buffer) { return buffer->host; }
void ggml_backend_tensor_get(const struct ggml_tensor *tensor, void *data, size_t offset, size_t size) {
    memcpy(data, (const char *) tensor->data + offset, size);
}
void ggml_backend_tensor_set(struct ggml_tensor *tensor, const void *data, size_t offset, size_t size) {
    memcpy((char *) tensor->data + offset, data, size);
}
