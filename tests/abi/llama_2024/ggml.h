/* What tiller_llama.h uses of ggml.h, as it was in mid-2024. */
#ifndef GGML_H
#define GGML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGML_MAX_SRC 10

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_backend_buffer;

struct ggml_tensor {
    int type;
    int backend;
    struct ggml_backend_buffer *buffer;
    int64_t ne[4];
    int op;
    struct ggml_tensor *grad;
    struct ggml_tensor *src[GGML_MAX_SRC];
    struct ggml_tensor *view_src;
    void *data;
    char name[64];
};

const char *ggml_get_name(const struct ggml_tensor *tensor);
const char *ggml_op_desc(const struct ggml_tensor *tensor);
bool ggml_is_contiguous(const struct ggml_tensor *tensor);

#ifdef __cplusplus
}
#endif

#endif
