/* A ggml for tests: tensors that are a name, a shape and memory, seen through a table like that of tiller_llama.h.
 * `hidden` memory is not given out by address, as that of a GPU isn't: it is reached through get and set alone. */
#ifndef FAKE_GGML_H
#define FAKE_GGML_H

#include <string.h>

#include "tiller.h"

struct ggml_tensor {
    char name[64];
    int dtype;
    int64_t shape[4];
    void *memory;
    bool hidden;
    struct ggml_tensor *operands[2];
};

static inline const char *fake_name(const struct ggml_tensor *t) { return t->name; }
static inline int fake_dtype(const struct ggml_tensor *t) { return t->dtype; }
static inline void fake_shape(const struct ggml_tensor *t, int64_t *shape) { memcpy(shape, t->shape, sizeof t->shape); }
static inline bool fake_contiguous(const struct ggml_tensor *t) { return t->memory != NULL; }
static inline void *fake_data(const struct ggml_tensor *t) { return t->hidden ? NULL : t->memory; }
static inline void fake_get(const struct ggml_tensor *t, void *to, size_t offset, size_t n) {
    memcpy(to, (const char *) t->memory + offset, n);
}
static inline void fake_set(struct ggml_tensor *t, const void *from, size_t offset, size_t n) {
    memcpy((char *) t->memory + offset, from, n);
}
static inline const struct ggml_tensor *fake_src(const struct ggml_tensor *t, int i) {
    return i >= 0 && i < 2 ? t->operands[i] : NULL;
}

static inline tiller_ggml fake_ggml(void) {
    tiller_ggml ggml;
    memset(&ggml, 0, sizeof ggml);
    ggml.size = (uint32_t) sizeof ggml;
    ggml.name = fake_name;
    ggml.dtype = fake_dtype;
    ggml.shape = fake_shape;
    ggml.contiguous = fake_contiguous;
    ggml.data = fake_data;
    ggml.get = fake_get;
    ggml.set = fake_set;
    ggml.src = fake_src;
    return ggml;
}

/* A tiller_lookup_fn that finds everything but the function of the name `user`. What it finds is never called. */
static inline void *fake_lookup(void *user, const char *name) { return strcmp((const char *) user, name) ? user : NULL; }

/* Runs a graph of two nodes through the hook, as ggml's scheduler would: one that holds the positions as an operand, and
 * `node` of `n_rows` rows of `data`, edited in place. Gives what the callback answered: 1 it asked for the node, 2 it lets
 * the graph run on. */
static inline int fake_graph(
    tiller_hook *hook, const char *node, float *data, size_t d_model, size_t n_rows, int32_t *positions, bool hidden
) {
    bool (*eval)(struct ggml_tensor *, bool, void *) = tiller_hook_eval; /* the type of cb_eval */
    struct ggml_tensor inp_pos, first, rows;
    memset(&inp_pos, 0, sizeof inp_pos);
    memset(&first, 0, sizeof first);
    memset(&rows, 0, sizeof rows);
    strcpy(inp_pos.name, "inp_pos");
    inp_pos.dtype = 26;
    inp_pos.shape[0] = (int64_t) n_rows;
    inp_pos.shape[1] = inp_pos.shape[2] = inp_pos.shape[3] = 1;
    inp_pos.memory = positions;
    inp_pos.hidden = hidden;
    strcpy(first.name, "Qcur-0");
    first.shape[0] = first.shape[1] = first.shape[2] = first.shape[3] = 1;
    first.operands[1] = &inp_pos;
    strncpy(rows.name, node, sizeof rows.name - 1);
    rows.shape[0] = (int64_t) d_model;
    rows.shape[1] = (int64_t) n_rows;
    rows.shape[2] = rows.shape[3] = 1;
    rows.memory = data;
    rows.hidden = hidden;
    int answer = 0;
    if (eval(&first, true, hook)) eval(&first, false, hook);
    if (eval(&rows, true, hook)) {
        answer |= 1;
        if (eval(&rows, false, hook)) answer |= 2;
    } else {
        answer |= 2;
    }
    return answer;
}

#endif
