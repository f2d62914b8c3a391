/* A ggml for tests: tensors that are a name, a shape and memory, seen through a table like that of tiller_llama.h, and graphs
 * as llama.cpp builds them. `hidden` memory is not given out by address, as that of a GPU isn't: it is reached through get
 * and set alone. */
#ifndef FAKE_GGML_H
#define FAKE_GGML_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiller.h"

enum { FAKE_F32 = 0, FAKE_I32 = 26, FAKE_I64 = 27, FAKE_BLOCKS = 3, FAKE_MOST = 96 };

struct ggml_tensor {
    char name[64];
    const char *op;
    int dtype;
    int64_t shape[4];
    void *memory;
    bool hidden;
    const struct ggml_tensor *operands[3];
};

static inline const char *fake_name(const struct ggml_tensor *t) { return t->name; }
static inline const char *fake_op(const struct ggml_tensor *t) { return t->op; }
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
    return i >= 0 && i < 3 ? t->operands[i] : NULL;
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
    ggml.op = fake_op;
    return ggml;
}

/* A tiller_lookup_fn that finds everything but the function of the name `user`. What it finds is never called. */
static inline void *fake_lookup(void *user, const char *name) { return strcmp((const char *) user, name) ? user : NULL; }

/* What outlives the graphs of a context, and tells it from others: its cache, and the embeddings of its model. */
struct fake_context {
    struct ggml_tensor cache, embeddings;
};

/* A batch: `n_rows` tokens in the context of a letter. Token 100 + p stands at position p. */
struct fake_batch {
    char context;
    const char *node; /* the one that holds `data`, n_rows rows of d_model floats; all others hold zeros */
    float *data;
    size_t d_model;
    const int32_t *positions;
    size_t n_rows;
    bool hidden;
};

struct fake_graph {
    const struct fake_batch *batch;
    struct ggml_tensor tensors[FAKE_MOST];
    struct ggml_tensor *nodes[FAKE_MOST];
    size_t n_tensors, n_nodes;
    float *zeros;
};

static inline struct ggml_tensor *fake_leaf(
    struct fake_graph *g, const char *name, int dtype, size_t width, size_t n_rows, void *memory
) {
    if (g->n_tensors == FAKE_MOST) abort();
    struct ggml_tensor *t = &g->tensors[g->n_tensors++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->op = "NONE";
    t->dtype = dtype;
    t->shape[0] = (int64_t) width;
    t->shape[1] = (int64_t) n_rows;
    t->shape[2] = t->shape[3] = 1;
    t->memory = memory;
    return t;
}

/* A node of rows. Where `block` is not below 0, it is a part of the name. */
static inline struct ggml_tensor *fake_node(
    struct fake_graph *g, const char *name, int block, const char *op, const struct ggml_tensor *first,
    const struct ggml_tensor *second
) {
    const struct fake_batch *b = g->batch;
    struct ggml_tensor *t = fake_leaf(g, name, FAKE_F32, b->d_model, b->n_rows, g->zeros);
    if (block >= 0) snprintf(t->name, sizeof t->name, "%s-%d", name, block);
    if (strcmp(t->name, b->node) == 0) {
        t->memory = b->data;
        t->hidden = b->hidden;
    }
    t->op = op;
    t->operands[0] = first;
    t->operands[1] = second;
    g->nodes[g->n_nodes++] = t;
    return t;
}

/* The weights of a name, of a block where that is not below 0. */
static inline struct ggml_tensor *fake_weight(struct fake_graph *g, const char *name, int block) {
    struct ggml_tensor *t = fake_leaf(g, name, FAKE_F32, g->batch->d_model, 1, g->zeros);
    if (block >= 0) snprintf(t->name, sizeof t->name, "blk.%d.%s", block, name);
    return t;
}

/* A graph as llama.cpp builds them, in the order in which it is computed. `integers`: room for 3 a row; `cells`: for 1. */
static inline void fake_build(struct fake_graph *g, struct fake_context *context, int32_t *integers, int64_t *cells) {
    const size_t n = g->batch->n_rows;
    int32_t *tokens = integers, *positions = integers + n, *outputs = integers + 2 * n;
    for (size_t i = 0; i < n; i++) {
        tokens[i] = 100 + g->batch->positions[i];
        positions[i] = g->batch->positions[i];
        outputs[i] = (int32_t) i;
        cells[i] = (int64_t) i;
    }
    struct ggml_tensor *inp_tokens = fake_leaf(g, "inp_tokens", FAKE_I32, n, 1, tokens);
    struct ggml_tensor *inp_pos = fake_leaf(g, "inp_pos", FAKE_I32, n, 1, positions);
    struct ggml_tensor *out_ids = fake_leaf(g, "out_ids", FAKE_I32, n, 1, outputs);
    struct ggml_tensor *k_idxs = fake_leaf(g, "attn_inp_k_idxs", FAKE_I64, n, 1, cells);
    struct ggml_tensor *x = fake_node(g, "embd", -1, "GET_ROWS", &context->embeddings, inp_tokens);
    for (int block = 0; block < FAKE_BLOCKS; block++) {
        struct ggml_tensor *norm = fake_node(g, "norm", block, "RMS_NORM", x, NULL);
        struct ggml_tensor *normed = fake_node(g, "attn_norm", block, "MUL", norm, fake_weight(g, "attn_norm.weight", block));
        struct ggml_tensor *key = fake_node(g, "Kcur", block, "ROPE", normed, inp_pos);
        struct ggml_tensor *view = fake_node(g, "cache_k_l0 (view)", -1, "VIEW", &context->cache, NULL);
        struct ggml_tensor *stored = fake_node(g, " (view)", -1, "SET_ROWS", key, k_idxs);
        stored->operands[2] = view;
        struct ggml_tensor *attention = fake_node(g, "attn_out", block, "MUL_MAT", stored, normed);
        if (block + 1 == FAKE_BLOCKS) {
            attention = fake_node(g, "node_attention", -1, "GET_ROWS", attention, out_ids);
            x = fake_node(g, "node_residual", -1, "GET_ROWS", x, out_ids);
        }
        struct ggml_tensor *middle = fake_node(g, "ffn_inp", block, "ADD", attention, x);
        norm = fake_node(g, "norm", block, "RMS_NORM", middle, NULL);
        normed = fake_node(g, "ffn_norm", block, "MUL", norm, fake_weight(g, "ffn_norm.weight", block));
        struct ggml_tensor *mlp = fake_node(g, "ffn_out", block, "MUL_MAT", normed, fake_weight(g, "ffn_down.weight", block));
        x = fake_node(g, "l_out", block, "ADD", mlp, middle);
    }
    x = fake_node(g, "norm", -1, "RMS_NORM", x, NULL);
    fake_node(g, "result_norm", -1, "MUL", x, fake_weight(g, "output_norm.weight", -1));
}

/* Runs a batch through the hook, as ggml's scheduler would. Gives what the callback answered: 1 it asked for a node, 2 it let
 * the graph run to its end. */
static inline int fake_decode(const tiller_hook *hook, const struct fake_batch *batch) {
    static struct fake_context contexts[2];
    struct fake_context *context = &contexts[batch->context == 'b'];
    snprintf(context->cache.name, sizeof context->cache.name, "cache_k_l0");
    snprintf(context->embeddings.name, sizeof context->embeddings.name, "token_embd.weight");
    context->cache.shape[0] = context->cache.shape[1] = context->cache.shape[2] = context->cache.shape[3] = 1;
    memcpy(context->embeddings.shape, context->cache.shape, sizeof context->cache.shape);
    context->cache.op = context->embeddings.op = "NONE";

    bool (*eval)(struct ggml_tensor *, bool, void *) = tiller_hook_eval; /* the type of cb_eval */
    struct fake_graph *g = (struct fake_graph *) calloc(1, sizeof *g);
    int32_t *integers = (int32_t *) calloc(3 * batch->n_rows + 1, sizeof *integers);
    int64_t *cells = (int64_t *) calloc(batch->n_rows + 1, sizeof *cells);
    if (!g || !integers || !cells) abort();
    g->batch = batch;
    g->zeros = (float *) calloc(batch->n_rows * batch->d_model + 1, sizeof *g->zeros);
    if (!g->zeros) abort();
    fake_build(g, context, integers, cells);
    int answer = 2;
    for (size_t i = 0; i < g->n_nodes && (answer & 2); i++) {
        if (!eval(g->nodes[i], true, (void *) hook)) continue;
        answer |= 1;
        if (!eval(g->nodes[i], false, (void *) hook)) answer &= ~2;
    }
    free(g->zeros);
    free(cells);
    free(integers);
    free(g);
    return answer;
}

/* What a second thread meets while another one computes with its hook. */
struct fake_intruder {
    const tiller_hook *hook;
    int answer;
    float data;
    tiller_status announced, planned;
};

static inline void *fake_intrude(void *user) {
    struct fake_intruder *own = (struct fake_intruder *) user;
    const int32_t position = 5;
    struct fake_batch batch = {'a', "l_out-1", &own->data, 1, &position, 1, false};
    tiller_row row;
    memset(&row, 0, sizeof row);
    own->answer = fake_decode(own->hook, &batch);
    own->announced = tiller_hook_announce(own->hook, &row, 1, NULL);
    own->planned = tiller_hook_set_plan(own->hook, NULL, NULL);
    return NULL;
}

/* A patch: the thread that runs it holds the hook. */
static inline int fake_let_in(void *user, float *data, size_t d_model, const tiller_row *rows, size_t n_rows) {
    (void) data, (void) d_model, (void) rows, (void) n_rows;
    pthread_t thread;
    if (pthread_create(&thread, NULL, fake_intrude, user) != 0) return 1;
    return pthread_join(thread, NULL);
}

/* Decodes one row while a second thread decodes with the same hook, announces a batch and takes the plan away. */
static inline tiller_status fake_intrusion(
    const tiller_hook *hook, tiller_point point, struct fake_intruder *intruder, tiller_error **err
) {
    memset(intruder, 0, sizeof *intruder);
    intruder->hook = hook;
    tiller_status status = tiller_hook_patch(hook, point, fake_let_in, intruder, err);
    if (status != TILLER_OK) return status;
    float data[2] = {1, 1};
    const int32_t position = 5;
    const struct fake_batch batch = {'a', "l_out-1", data, 2, &position, 1, false};
    fake_decode(hook, &batch);
    return tiller_hook_patch(hook, point, NULL, NULL, err);
}

#endif
