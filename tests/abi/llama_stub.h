/* What a program sees of the stub's insides. */
#include "llama.h"

struct llama_model {
    int32_t n_layer, n_embd;
};
struct llama_context {
    int calls, refuses;
    float vector[8];
    size_t n;
    int32_t n_embd, first, last;
};

#ifdef __cplusplus
extern "C" {
#endif

extern struct llama_context stub_context;
extern const struct llama_model stub_model;
extern struct ggml_backend_buffer stub_host, stub_device;

#ifdef __cplusplus
}
#endif
