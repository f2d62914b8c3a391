/* The cases of cases.tsv in plain C. Run it under valgrind, too. */
#include "runner.h"

#include "fake_ggml.h"

/* ---- What a case leaves behind ---- */

static tiller_status status;
static tiller_error *err;
static char result[1 << 16];
static size_t result_length;

/* Handles by name. Each knows how it is freed. */
static struct slot {
    char name[16];
    void *handle;
    void (*release)(void *);
} slots[64];

static struct slot *find(const char *name) {
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        if (slots[i].handle && strcmp(slots[i].name, name) == 0) return &slots[i];
    }
    return NULL;
}

static void *get(const char *name) {
    struct slot *slot = find(name);
    return slot ? slot->handle : NULL;
}

static void drop(const char *name) {
    struct slot *slot = find(name);
    if (!slot) return;
    slot->release(slot->handle);
    slot->handle = NULL;
}

static void put(const char *name, void *handle, void (*release)(void *)) {
    if (!handle) return;
    drop(name);
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        if (slots[i].handle) continue;
        snprintf(slots[i].name, sizeof slots[i].name, "%s", name);
        slots[i].handle = handle;
        slots[i].release = release;
        return;
    }
    abort();
}

#define RELEASE(type) \
    static void release_##type(void *handle) { tiller_##type##_free((tiller_##type *) handle); }
/* Keeps what a call made under a name. */
#define KEEP(type, name, made) put(name, made, release_##type)

RELEASE(dictionary)
RELEASE(slice)
RELEASE(gguf)
RELEASE(model)
RELEASE(vocabulary)
RELEASE(explanations)
RELEASE(matches)
RELEASE(plan)
RELEASE(compiled)
RELEASE(control_vector)
RELEASE(coder)
RELEASE(probe)
RELEASE(temporal)
RELEASE(hook)
RELEASE(diagnosis)
RELEASE(concepts)

/* ---- What comes out ---- */

static void out(const char *format, ...) {
    va_list list;
    va_start(list, format);
    const int n = vsnprintf(result + result_length, sizeof result - result_length, format, list);
    va_end(list);
    if (n > 0) result_length += (size_t) n;
}

static void out_floats(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) out("%s%.5g", result_length ? " " : "", (double) x[i]);
}

static void out_text(tiller_text *text) {
    if (status == TILLER_OK) out("%s", tiller_text_data(text));
    if (status == TILLER_OK && tiller_text_length(text) != strlen(tiller_text_data(text))) out(" (wrong length)");
    tiller_text_free(text);
}

static const char *truth(bool value) { return value ? "true" : "false"; }

/* ---- What goes in: lists are parted by spaces, "-" is none ---- */

/* Memory of one case. */
static void *memory[32];
static size_t n_memory;

static void *take(size_t n) {
    void *p = calloc(n ? n : 1, 1);
    if (!p || n_memory == sizeof memory / sizeof *memory) abort();
    return memory[n_memory++] = p;
}

static float *floats(const char *text, size_t *n) {
    *n = 0;
    if (strcmp(text, "-") == 0) return NULL;
    float *list = (float *) take(strlen(text) * sizeof *list);
    for (char *end; *text; text = end) {
        list[(*n)++] = strtof(text, &end);
        while (*end == ' ') end++;
    }
    return list;
}

static uint32_t *numbers(const char *text, size_t *n) {
    const float *from = floats(text, n);
    uint32_t *list = (uint32_t *) take(*n * sizeof *list);
    for (size_t i = 0; i < *n; i++) list[i] = (uint32_t) from[i];
    return list;
}

/* "position:sequence:generated:token:shared,shared …"; what is left out, or no number, is not known, or none. */
static tiller_row *rows(const char *text, size_t *n) {
    tiller_row *list = (tiller_row *) take(strlen(text) * sizeof *list + 1);
    for (*n = 0; *text && strcmp(text, "-") != 0; (*n)++) {
        tiller_row *row = &list[*n];
        char token[16] = "-", shared[64] = "";
        int taken = 0;
        sscanf(text, "%d:%d:%u%n", &row->position, &row->sequence, &row->generated, &taken);
        text += taken;
        if (sscanf(text, ":%15[-0-9]%n", token, &taken) == 1) text += taken;
        if (sscanf(text, ":%63[,0-9]%n", shared, &taken) == 1) text += taken;
        row->has_token = token[0] != '-';
        row->token = row->has_token ? atoi(token) : 0;
        for (const char *id = strtok(shared, ","); id; id = strtok(NULL, ",")) {
            row->shared[atoi(id) / 64] |= (uint64_t) 1 << (atoi(id) % 64);
        }
        while (*text == ' ') text++;
    }
    return list;
}

static void out_row(const tiller_row *row) {
    out(" %d:%d:%u:", row->position, row->sequence, row->generated);
    out(row->has_token ? "%d" : "-", row->token);
    const char *mark = ":";
    for (int id = 0; id < 256; id++) {
        if (row->shared[id / 64] >> (id % 64) & 1) out("%s%d", mark, id), mark = ",";
    }
}

/* "feature:activation …" */
static tiller_code *codes(const char *text, size_t *n) {
    tiller_code *list = (tiller_code *) take(strlen(text) * sizeof *list);
    for (*n = 0; *text && strcmp(text, "-") != 0; (*n)++) {
        int taken = 0;
        sscanf(text, "%u:%f%n", &list[*n].feature, &list[*n].activation, &taken);
        for (text += taken; *text == ' ';) text++;
    }
    return list;
}

static uint32_t number(const char *text) { return (uint32_t) strtoul(text, NULL, 10); }

/* ---- Dictionaries ---- */

static void version(char **a) {
    (void) a;
    out("%s", tiller_version());
}

static void dictionary_new(char **a) {
    tiller_dictionary_parts parts;
    memset(&parts, 0, sizeof parts);
    parts.size = sizeof parts;
    size_t n;
    parts.activation = number(a[1]);
    parts.d_model = number(a[2]);
    parts.n_features = number(a[3]);
    parts.k = number(a[4]);
    parts.encoder = floats(a[5], &n);
    parts.decoder = floats(a[6], &n);
    parts.threshold = floats(a[7], &n);
    parts.stats = (const tiller_stats *) floats(a[8], &n);
    parts.has_layer = a[9][0] != '-';
    parts.layer = number(a[9]);
    parts.name = strcmp(a[10], "-") ? a[10] : NULL;
    tiller_dictionary *made = NULL;
    status = tiller_dictionary_new(&parts, &made, &err);
    KEEP(dictionary, a[0], made);
}

static void dictionary_open(char **a) {
    tiller_dictionary *made = NULL;
    status = tiller_dictionary_open(a[1], &made, &err);
    KEEP(dictionary, a[0], made);
}

static void dictionary_info(char **a) {
    tiller_dictionary_info info;
    info.size = sizeof info;
    status = tiller_dictionary_get_info(get(a[0]), &info, &err);
    if (status != TILLER_OK) return;
    out("%u %llu %llu %llu %d %u %s %s", info.activation, (unsigned long long) info.d_model,
        (unsigned long long) info.n_features, (unsigned long long) info.k, info.layer, info.has_stats, info.storage,
        info.name);
    if (info.d_model != tiller_dictionary_d_model(get(a[0]))) out(" (another width)");
}

static void dictionary_stats(char **a) {
    tiller_stats stats;
    status = tiller_dictionary_stats(get(a[0]), number(a[1]), &stats, &err);
    if (status == TILLER_OK) out("%.5g %.5g %.5g", stats.density, stats.max, stats.mean);
}

static void dictionary_encode(char **a) {
    size_t n_row, n = tiller_dictionary_n_features(get(a[0]));
    const float *row = floats(a[1], &n_row);
    float *activations = (float *) take(n * sizeof *activations);
    status = tiller_dictionary_encode(get(a[0]), row, n_row, activations, n, &err);
    if (status == TILLER_OK) out_floats(activations, n);
}

static void dictionary_encode_rows(char **a) {
    size_t n_data;
    const float *data = floats(a[1], &n_data);
    tiller_codes *codes = NULL;
    status = tiller_dictionary_encode_rows(get(a[0]), data, n_data, number(a[2]), &codes, &err);
    for (size_t i = 0; i < tiller_codes_n_rows(codes); i++) {
        size_t n;
        const tiller_code *row = tiller_codes_row(codes, i, &n);
        out(i ? " |" : "");
        for (size_t j = 0; j < n; j++) out("%s%u:%.5g", result_length ? " " : "", row[j].feature, row[j].activation);
    }
    tiller_codes_free(codes);
}

static void dictionary_decode(char **a) {
    size_t n_codes, n_row = tiller_dictionary_d_model(get(a[0]));
    const tiller_code *list = codes(a[1], &n_codes);
    float *row = (float *) take(n_row * sizeof *row);
    status = tiller_dictionary_decode(get(a[0]), list, n_codes, row, n_row, &err);
    if (status == TILLER_OK) out_floats(row, n_row);
}

static void dictionary_encoder_row(char **a) {
    size_t n = tiller_dictionary_d_model(get(a[0]));
    float *row = (float *) take(n * sizeof *row);
    status = tiller_dictionary_encoder_row(get(a[0]), number(a[1]), row, n, &err);
    if (status == TILLER_OK) out_floats(row, n);
}

static void dictionary_decoder_row(char **a) {
    size_t n = tiller_dictionary_d_out(get(a[0]));
    float *row = (float *) take(n * sizeof *row);
    status = tiller_dictionary_decoder_row(get(a[0]), number(a[1]), row, n, &err);
    if (status == TILLER_OK) out_floats(row, n);
}

static void dictionary_save(char **a) { status = tiller_dictionary_save(get(a[0]), a[1], a[2], &err); }

static void dictionary_open_as(char **a) {
    tiller_dictionary *made = NULL;
    status = tiller_dictionary_open_as(a[1], a[2], NULL, &made, &err);
    KEEP(dictionary, a[0], made);
}

static void dictionary_convert(char **a) {
    tiller_loss loss;
    status = tiller_dictionary_convert(get(a[0]), a[1], a[2], &loss, &err);
    if (status != TILLER_OK) return;
    out("%.5g %.5g %.5g %.5g", loss.encoder_min, loss.encoder_mean, loss.decoder_min, loss.decoder_mean);
}

static void dictionary_save_saelens(char **a) { status = tiller_dictionary_save_saelens(get(a[0]), a[1], &err); }

static void dictionary_save_sparsify(char **a) { status = tiller_dictionary_save_sparsify(get(a[0]), a[1], &err); }

static void dictionary_encode_file(char **a) {
    tiller_encoded done;
    done.size = sizeof done;
    const char *name = strcmp(a[2], "-") == 0 ? NULL : a[2];
    status = tiller_dictionary_encode_file(get(a[0]), a[1], name, a[3], number(a[4]), NULL, &done, &err);
    if (status == TILLER_OK) out("%llu %llu", (unsigned long long) done.n_rows, (unsigned long long) done.n_active);
}

static void dictionary_decode_file(char **a) {
    uint64_t n = 0;
    const char *rows = strcmp(a[2], "-") == 0 ? NULL : a[2];
    status = tiller_dictionary_decode_file(get(a[0]), a[1], rows, a[3], &n, &err);
    if (status == TILLER_OK) out("%llu", (unsigned long long) n);
}

/* Two points: a name and its rows, each. */
static void dictionary_diagnose(char **a) {
    tiller_hook_rows list[2];
    const size_t n = strcmp(a[4], "-") == 0 ? 1 : 2;
    for (size_t i = 0; i < n; i++) {
        list[i].hook = a[2 + 2 * i];
        list[i].data = floats(a[3 + 2 * i], &list[i].n_data);
    }
    tiller_diagnosis *made = NULL;
    status = tiller_dictionary_diagnose(get(a[1]), list, n, 1, NULL, &made, &err);
    KEEP(diagnosis, a[0], made);
}

static void diagnosis_get(char **a) {
    tiller_diagnosed found;
    found.size = sizeof found;
    status = tiller_diagnosis_get(get(a[0]), &found, &err);
    if (status != TILLER_OK) return;
    out("%s %s %.5g %.5g", truth(found.fits), truth(found.has_cause), found.l0, found.promised_l0);
}

static void diagnosis_verdict(char **a) {
    tiller_text *text = NULL;
    status = tiller_diagnosis_verdict(get(a[0]), &text, &err);
    out_text(text);
}

static void diagnosis_tried(char **a) {
    double l0 = -1, fvu = -1;
    tiller_text *text = NULL;
    status = tiller_diagnosis_tried(get(a[0]), number(a[1]), &l0, &fvu, &text, &err);
    if (status == TILLER_OK) out("%s ", truth(l0 >= 0 && fvu >= 0));
    if (status == TILLER_OK) out("%s", tiller_text_data(text));
    tiller_text_free(text);
}

static void dictionary_select(char **a) {
    size_t n;
    const uint32_t *features = numbers(a[2], &n);
    tiller_dictionary *made = NULL;
    status = tiller_dictionary_select(get(a[1]), features, n, &made, &err);
    KEEP(dictionary, a[0], made);
    if (status == TILLER_OK) out("%zu", tiller_dictionary_n_features(made));
}

static void slice_new(char **a) {
    size_t n;
    const uint32_t *features = numbers(a[2], &n);
    tiller_slice *made = NULL;
    status = tiller_dictionary_slice(get(a[1]), features, n, &made, &err);
    KEEP(slice, a[0], made);
    if (status == TILLER_OK) out("%zu %s", tiller_slice_length(made), tiller_slice_is_exact(made) ? "true" : "false");
}

static void slice_encode(char **a) {
    size_t n_row, n = tiller_slice_length(get(a[0]));
    const float *row = floats(a[1], &n_row);
    float *activations = (float *) take(n * sizeof *activations);
    status = tiller_slice_encode(get(a[0]), row, n_row, activations, n, &err);
    if (status == TILLER_OK) out_floats(activations, n);
}

static void slice_edit(char **a) {
    size_t n_deltas, n_row;
    const float *deltas = floats(a[1], &n_deltas);
    float *row = floats(a[2], &n_row);
    status = tiller_slice_edit(get(a[0]), deltas, n_deltas, row, n_row, &err);
    if (status == TILLER_OK) out_floats(row, n_row);
}

static void free_(char **a) { drop(a[0]); }

/* ---- Files and models ---- */

static void gguf_open(char **a) {
    tiller_gguf *made = NULL;
    status = tiller_gguf_open(a[1], &made, &err);
    KEEP(gguf, a[0], made);
}

static void gguf_value(char **a) {
    tiller_text *text = NULL;
    status = tiller_gguf_value(get(a[0]), a[1], &text, &err);
    out_text(text);
}

static void gguf_has(char **a) {
    bool has = false;
    for (size_t i = 0; i < tiller_gguf_n_keys(get(a[0])); i++) has |= strcmp(tiller_gguf_key(get(a[0]), i), a[1]) == 0;
    out(has ? "true" : "false");
}

static void gguf_tensor(char **a) {
    for (size_t i = 0; i < tiller_gguf_n_tensors(get(a[0])); i++) {
        tiller_tensor t;
        t.size = sizeof t;
        status = tiller_gguf_tensor(get(a[0]), i, &t, &err);
        if (status != TILLER_OK) return;
        if (strcmp(t.name, a[1]) == 0) {
            out("%s %u", t.name, t.dtype);
            for (int j = 0; j < 4; j++) out(" %llu", (unsigned long long) t.shape[j]);
            out(" %llu", (unsigned long long) t.n_bytes);
        }
    }
}

static void model_open(char **a) {
    tiller_model *made = NULL;
    status = tiller_model_open(a[1], &made, &err);
    KEEP(model, a[0], made);
}


static void model_info(char **a) {
    const tiller_model *m = get(a[0]);
    out("%s %s %s %zu %zu %zu %zu %s %d %d %s", tiller_model_architecture(m), tiller_model_name(m),
        tiller_model_quantization(m), tiller_model_n_layer(m), tiller_model_d_model(m), tiller_model_n_vocab(m),
        tiller_model_context_length(m), truth(tiller_model_tied_unembedding(m)), tiller_model_bos(m),
        tiller_model_eos(m), truth(tiller_model_add_bos(m)));
}

static void model_fingerprint_length(char **a) { out("%zu", strlen(tiller_model_fingerprint(get(a[0])))); }

static void model_token_text(char **a) {
    tiller_text *text = NULL;
    status = tiller_model_token_text(get(a[0]), (int32_t) number(a[1]), &text, &err);
    out_text(text);
}

static void model_token_bytes(char **a) {
    tiller_text *text = NULL;
    status = tiller_model_token_bytes(get(a[0]), (int32_t) number(a[1]), &text, &err);
    out_text(text);
}

static void model_output_norm(char **a) {
    size_t n = tiller_model_d_model(get(a[0]));
    float *weight = (float *) take(n * sizeof *weight), epsilon = 0;
    status = tiller_model_output_norm(get(a[0]), weight, n, &epsilon, &err);
    if (status != TILLER_OK) return;
    out_floats(weight, n);
    out_floats(&epsilon, 1);
}

static void model_unembedding_row(char **a) {
    size_t n = tiller_model_d_model(get(a[0]));
    float *row = (float *) take(n * sizeof *row);
    status = tiller_model_unembedding_row(get(a[0]), (int32_t) number(a[1]), row, n, &err);
    if (status == TILLER_OK) out_floats(row, n);
}

static void model_check(char **a) {
    tiller_text *warning = NULL;
    status = tiller_model_check(get(a[0]), get(a[1]), &warning, &err);
    out_text(warning);
}

/* ---- Words ---- */

static void vocabulary_new(char **a) {
    const char *texts[2] = {a[2], a[3]};
    tiller_vocabulary *made = NULL;
    status = tiller_vocabulary_new(texts, a[3] ? 2 : 1, number(a[1]), &made, &err);
    KEEP(vocabulary, a[0], made);
    if (status == TILLER_OK) out("%zu", tiller_vocabulary_n_words(made));
}

static void vocabulary_open(char **a) {
    tiller_vocabulary *made = NULL;
    status = tiller_vocabulary_open(a[1], &made, &err);
    KEEP(vocabulary, a[0], made);
    if (status == TILLER_OK) out("%zu", tiller_vocabulary_n_words(made));
}

static void vocabulary_word(char **a) {
    tiller_text *text = NULL;
    status = tiller_vocabulary_word(get(a[0]), number(a[1]), &text, &err);
    out_text(text);
}

static void vocabulary_save(char **a) { status = tiller_vocabulary_save(get(a[0]), a[1], &err); }

static void explanations_open(char **a) {
    tiller_explanations *made = NULL;
    status = tiller_explanations_open(a[1], &made, &err);
    KEEP(explanations, a[0], made);
    if (status == TILLER_OK) out("%zu", tiller_explanations_length(made));
}

static void explanations_feature(char **a) { out("%u", tiller_explanations_feature(get(a[0]), number(a[1]))); }

static void explanations_words(char **a) {
    tiller_text *text = NULL;
    status = tiller_explanations_words(get(a[0]), number(a[1]), number(a[2]), &text, &err);
    out_text(text);
}

static void explanations_json(char **a) {
    tiller_text *text = NULL;
    status = tiller_explanations_json(get(a[0]), number(a[1]), &text, &err);
    out_text(text);
}

static void keep_matches(char *name, tiller_matches *made) {
    KEEP(matches, name, made);
    for (size_t i = 0; i < tiller_matches_length(made); i++) {
        tiller_match match;
        match.size = sizeof match;
        status = tiller_matches_get(made, i, &match, &err);
        out("%s%u", i ? " " : "", match.feature);
    }
}

static void explanations_find(char **a) {
    const char *words[2] = {a[3], a[4]};
    tiller_matches *made = NULL;
    status = tiller_explanations_find(get(a[1]), words, a[4] ? 2 : 1, number(a[2]), NULL, &made, &err);
    keep_matches(a[0], made);
}

static void explanations_find_label(char **a) {
    tiller_matches *made = NULL;
    status = tiller_explanations_find_label(get(a[1]), a[3], number(a[2]), &made, &err);
    keep_matches(a[0], made);
}

static void match(char **a) {
    tiller_match match;
    match.size = sizeof match;
    status = tiller_matches_get(get(a[0]), number(a[1]), &match, &err);
    if (status == TILLER_OK) out("%u %.5g %s", match.feature, match.weight, match.words);
}

static void explanations_unknown(char **a) {
    const char *words[2] = {a[1], a[2]};
    tiller_text *text = NULL;
    status = tiller_explanations_unknown_words(get(a[0]), words, a[2] ? 2 : 1, &text, &err);
    out_text(text);
}

static void explanations_label(char **a) {
    status = tiller_explanations_set_label(get(a[0]), number(a[1]), strcmp(a[2], "-") ? a[2] : NULL, &err);
}

static void explanations_save_labels(char **a) { status = tiller_explanations_save_labels(get(a[0]), a[1], &err); }

static void explanations_load_labels(char **a) {
    size_t n = 0;
    status = tiller_explanations_load_labels(get(a[0]), a[1], &n, &err);
    if (status == TILLER_OK) out("%zu", n);
}

static void explanations_save(char **a) { status = tiller_explanations_save(get(a[0]), a[1], &err); }

/* ---- Plans ---- */

static void keep_plan(const char *name, tiller_plan *made) {
    KEEP(plan, name, made);
    if (status == TILLER_OK) out("%zu", tiller_plan_n_rules(made));
}

static void plan_parse(char **a) {
    tiller_plan *made = NULL;
    status = tiller_plan_parse(a[1], &made, &err);
    keep_plan(a[0], made);
}

static void plan_open(char **a) {
    tiller_plan *made = NULL;
    status = tiller_plan_open(a[1], &made, &err);
    keep_plan(a[0], made);
}

static void plan_for(char **a) {
    tiller_plan *made = NULL;
    status = tiller_plan_for(get(a[1]), a[2], strtof(a[3], NULL), number(a[4]), NULL, &made, &err);
    keep_plan(a[0], made);
}

static void plan_scaled(char **a) {
    tiller_plan *made = NULL;
    status = tiller_plan_scaled(get(a[1]), strtof(a[2], NULL), &made, &err);
    keep_plan(a[0], made);
}

static void plan_json(char **a) {
    tiller_text *text = NULL;
    status = tiller_plan_json(get(a[0]), &text, &err);
    out_text(text);
}

static void plan_save(char **a) { status = tiller_plan_save(get(a[0]), a[1], &err); }

static void plan_compile(char **a) {
    const tiller_named named = {"", get(a[5])};
    tiller_compiled *made = NULL;
    status = tiller_plan_compile(get(a[1]), &named, 1, number(a[3]), number(a[4]), number(a[2]), &made, &err);
    KEEP(compiled, a[0], made);
    if (status != TILLER_OK) return;
    out("%s %zu", truth(tiller_compiled_needs_callback(made)), tiller_compiled_control_vector_length(made));
    if (strlen(tiller_compiled_fingerprint(made)) != 64) out(" (wrong fingerprint)");
}

static void compiled_check(char **a) { status = tiller_compiled_check(get(a[0]), number(a[1]), number(a[2]), &err); }

static void compiled_control_vector(char **a) {
    size_t n = tiller_compiled_control_vector_length(get(a[0]));
    float *data = (float *) take(n * sizeof *data);
    status = tiller_compiled_control_vector(get(a[0]), data, n, &err);
    if (status == TILLER_OK) out_floats(data, n);
}

/* "2" is the residual stream after block 2; "2/4" site 4 of it. */
static tiller_point point(const char *text) {
    const char *site = strchr(text, '/');
    const tiller_point point = {number(text), site ? number(site + 1) : 0};
    return point;
}

static void compiled_apply(char **a) {
    size_t n_data, n_rows;
    float *data = floats(a[2], &n_data);
    const tiller_row *list = rows(a[3], &n_rows);
    uint64_t n_edited = 0;
    status = tiller_compiled_apply(get(a[0]), point(a[1]), data, n_data, list, n_rows, &n_edited, &err);
    if (status != TILLER_OK) return;
    out_floats(data, n_data);
    out(" %llu", (unsigned long long) n_edited);
}

static void control_vector_new(char **a) {
    tiller_control_vector *made = NULL;
    status = tiller_control_vector_new(number(a[1]), &made, &err);
    KEEP(control_vector, a[0], made);
}

static void control_vector_open(char **a) {
    tiller_control_vector *made = NULL;
    status = tiller_control_vector_open(a[1], &made, &err);
    KEEP(control_vector, a[0], made);
}

static void control_vector_add(char **a) {
    size_t n;
    const float *direction = floats(a[2], &n);
    status = tiller_control_vector_add(get(a[0]), number(a[1]), direction, n, &err);
}

static void control_vector_data(char **a) {
    size_t n = (number(a[1]) - 1) * tiller_control_vector_d_model(get(a[0]));
    float *data = (float *) take(n * sizeof *data);
    status = tiller_control_vector_data(get(a[0]), number(a[1]), data, n, &err);
    if (status == TILLER_OK) out_floats(data, n);
}

static void temporal_open(char **a) {
    tiller_temporal *made = NULL;
    status = tiller_temporal_open(a[1], &made, &err);
    KEEP(temporal, a[0], made);
}

static void temporal_save(char **a) { status = tiller_temporal_save(get(a[0]), a[1], &err); }

static void temporal_info(char **a) {
    const tiller_temporal *t = get(a[0]);
    const size_t n = tiller_temporal_n_latents(t);
    uint32_t *features = (uint32_t *) take(n * sizeof *features), *order = (uint32_t *) take(n * sizeof *order);
    float *deviation = (float *) take(n * sizeof *deviation);
    status = tiller_temporal_features(t, features, n, &err);
    if (status == TILLER_OK) status = tiller_temporal_order(t, order, n, &err);
    if (status == TILLER_OK) status = tiller_temporal_deviation(t, deviation, n, &err);
    if (status != TILLER_OK) return;
    out("%zu %zu %zu", n, tiller_temporal_lags(t), tiller_temporal_d_model(t));
    for (size_t i = 0; i < n; i++) out(" %u", features[i]);
    for (size_t i = 0; i < n; i++) out(" %u", order[i]);
    out_floats(deviation, n);
}

static void temporal_weights(char **a) {
    const size_t n = tiller_temporal_n_latents(get(a[0])) * tiller_temporal_n_latents(get(a[0]));
    float *weights = (float *) take(n * sizeof *weights);
    status = tiller_temporal_weights(get(a[0]), number(a[1]), weights, n, &err);
    if (status == TILLER_OK) out_floats(weights, n);
}

static void temporal_response(char **a) {
    const size_t n = ((size_t) number(a[2]) + 1) * tiller_temporal_n_latents(get(a[0]));
    float *response = (float *) take(n * sizeof *response);
    status = tiller_temporal_response(get(a[0]), number(a[1]), number(a[2]), response, n, &err);
    if (status == TILLER_OK) out_floats(response, n);
}

static void temporal_direction(char **a) {
    const size_t n = tiller_temporal_d_model(get(a[0]));
    float *direction = (float *) take(n * sizeof *direction);
    status = tiller_temporal_direction(get(a[0]), number(a[1]), number(a[2]) != 0, direction, n, &err);
    if (status == TILLER_OK) out_floats(direction, n);
}

static void control_vector_save(char **a) { status = tiller_control_vector_save(get(a[0]), a[1], a[2], &err); }

/* ---- Coders, directions, probes ---- */

static void coder_made(const char *name, tiller_coder *made) {
    KEEP(coder, name, made);
    if (status == TILLER_OK) out("%zu %zu", tiller_coder_d_model(made), tiller_coder_n_latents(made));
}

/* name, objective, regularizer, groups, sparsity, latents, steps, width, rows */
static void coder_train(char **a) {
    size_t n;
    const float *data = floats(a[8], &n);
    tiller_coder_options options = {0};
    options.size = sizeof options;
    options.objective = number(a[1]);
    options.regularizer = number(a[2]);
    options.groups = number(a[3]);
    options.sparsity = number(a[4]);
    options.n_latents = number(a[5]);
    options.steps = number(a[6]);
    options.threads = 1;
    tiller_coder *made = NULL;
    status = tiller_coder_train_rows(data, n, number(a[7]), &options, NULL, NULL, &made, &err);
    coder_made(a[0], made);
}

static void coder_open(char **a) {
    tiller_coder *made = NULL;
    status = tiller_coder_open(a[1], &made, &err);
    coder_made(a[0], made);
}

static void coder_save(char **a) { status = tiller_coder_save(get(a[0]), a[1], &err); }

/* Codes rows and back: how many codes, then the direction of a latent at norm 1 or not, the codes and the rows not being
   the same on every processor. */
static void coder_code(char **a) {
    const tiller_coder *coder = get(a[0]);
    size_t n, d = tiller_coder_d_model(coder);
    const float *data = floats(a[1], &n);
    size_t n_codes = d ? n / d * tiller_coder_n_latents(coder) : 0;
    float *all = (float *) take(n_codes * sizeof *all), *back = (float *) take(n * sizeof *back);
    status = tiller_coder_encode(coder, data, n, 1, all, n_codes, &err);
    if (status == TILLER_OK) status = tiller_coder_decode(coder, all, n_codes, 1, back, n, &err);
    float *row = (float *) take(d * sizeof *row);
    if (status == TILLER_OK) status = tiller_coder_decoder_row(coder, number(a[2]), row, d, &err);
    if (status == TILLER_OK) out("%zu codes", n_codes);
}

static void coder_dictionary(char **a) {
    tiller_dictionary *made = NULL;
    status = tiller_coder_dictionary(get(a[1]), &made, &err);
    KEEP(dictionary, a[0], made);
}

static void concepts_new(char **a) {
    tiller_concepts *made = NULL;
    status = tiller_concepts_new(number(a[1]), &made, &err);
    KEEP(concepts, a[0], made);
}

/* concepts, name, rows, labels */
static void concepts_add(char **a) {
    size_t n, n_labels;
    const float *data = floats(a[2], &n);
    const uint32_t *labels = numbers(a[3], &n_labels);
    uint8_t *bytes = (uint8_t *) take(n_labels);
    for (size_t i = 0; i < n_labels; i++) bytes[i] = (uint8_t) labels[i];
    status = tiller_concepts_add(get(a[0]), a[1], data, n, bytes, n_labels, &err);
    if (status == TILLER_OK) out("%zu", tiller_concepts_length(get(a[0])));
}

/* Which feature every concept was matched with, and whether the figures make sense. */
static void mpc_made(tiller_mpc *made, size_t n) {
    if (status != TILLER_OK) return;
    tiller_mpc_figures f;
    f.size = sizeof f;
    status = tiller_mpc_get(made, &f, &err);
    out("%s", truth(f.mpc > 0 && f.mpc < 1.000001 && f.raw >= f.shuffled_raw && f.shuffled >= 0));
    for (size_t i = 0; status == TILLER_OK && i < n; i++) {
        uint32_t feature = 0;
        double correlation = -1;
        tiller_text *text = NULL;
        status = tiller_mpc_match(made, i, &feature, &correlation, &text, &err);
        if (status == TILLER_OK) out(" %s %u", tiller_text_data(text), feature);
        tiller_text_free(text);
    }
    tiller_mpc_free(made);
}

static void dictionary_mpc(char **a) {
    tiller_mpc *made = NULL;
    status = tiller_dictionary_mpc(get(a[0]), get(a[1]), 1, NULL, &made, &err);
    mpc_made(made, tiller_concepts_length(get(a[1])));
}

static void coder_mpc(char **a) {
    tiller_mpc *made = NULL;
    status = tiller_coder_mpc(get(a[0]), get(a[1]), 1, NULL, &made, &err);
    if (status == TILLER_OK) out("codes ");
    mpc_made(made, 0);
}

/* method, width, positive, negative */
static void direction(char **a) {
    size_t n_positive, n_negative, d = number(a[1]);
    const float *positive = floats(a[2], &n_positive), *negative = floats(a[3], &n_negative);
    float *values = (float *) take(d * sizeof *values);
    tiller_direction_report report = {0};
    report.size = sizeof report;
    status = tiller_direction(positive, n_positive, negative, n_negative, d, number(a[0]), 1, values, d, &report, &err);
    if (status != TILLER_OK) return;
    out_floats(values, d);
    out(" %.5g", report.agreement);
}

static void probe_made(const char *name, tiller_probe *made) {
    KEEP(probe, name, made);
    if (status != TILLER_OK) return;
    size_t d = tiller_probe_d_model(made);
    float *weights = (float *) take(d * sizeof *weights);
    status = tiller_probe_weights(made, weights, d, &err);
    for (size_t i = 0; i < d; i++) out(weights[i] > 0 ? "+" : weights[i] < 0 ? "-" : "0");
    out(tiller_probe_bias(made) > 0 ? " +" : " -");
}

/* name, penalty, k, width, rows, labels */
static void probe_fit(char **a) {
    size_t n, n_labels;
    const float *data = floats(a[4], &n), *given = floats(a[5], &n_labels);
    uint8_t *labels = (uint8_t *) take(n_labels);
    for (size_t i = 0; i < n_labels; i++) labels[i] = (uint8_t) given[i];
    tiller_probe_options options = {0};
    options.size = sizeof options;
    options.penalty = number(a[1]);
    options.k = number(a[2]);
    options.c = 10;
    options.threads = 1;
    tiller_probe *made = NULL;
    status = tiller_probe_fit(data, n, number(a[3]), labels, n_labels, &options, NULL, &made, &err);
    probe_made(a[0], made);
}

static void probe_open(char **a) {
    tiller_probe *made = NULL;
    status = tiller_probe_open(a[1], &made, &err);
    probe_made(a[0], made);
}

static void probe_save(char **a) { status = tiller_probe_save(get(a[0]), a[1], &err); }

/* ---- The hook ---- */

static void hook_new(char **a) {
    const tiller_ggml ggml = fake_ggml();
    tiller_hook *made = NULL;
    status = tiller_hook_new(&ggml, &made, &err);
    KEEP(hook, a[0], made);
}

static void ggml_probe(char **a) {
    tiller_ggml ggml;
    ggml.size = sizeof ggml;
    status = tiller_ggml_probe(strcmp(a[0], "-") ? fake_lookup : NULL, a[0], &ggml, &err);
}

/* hook, context, node, data, width, positions, host or device */
static void hook_graph(char **a) {
    size_t n_data, n_rows;
    float *data = floats(a[3], &n_data);
    const int32_t *positions = (int32_t *) numbers(a[5], &n_rows);
    const struct fake_batch batch = {
        a[1][0], a[2], data, number(a[4]), positions, n_rows, strcmp(a[6], "device") == 0
    };
    out("%d", fake_decode(get(a[0]), &batch));
    out_floats(data, n_data);
}

/* A second thread finds the hook in use: its graph is left alone, its announcement refused, its plan taken. */
static void hook_intrusion(char **a) {
    struct fake_intruder intruder;
    status = fake_intrusion(get(a[0]), point(a[1]), &intruder, &err);
    if (status != TILLER_OK) return;
    out("%d %g %s %s", intruder.answer, (double) intruder.data, status_name(intruder.announced),
        status_name(intruder.planned));
}

static void hook_check_plan(char **a) { status = tiller_hook_check_plan(get(a[0]), get(a[1]), &err); }

static void hook_sequences(char **a) { status = tiller_hook_set_sequences(get(a[0]), number(a[1]), &err); }

static void hook_rebind(char **a) { status = tiller_hook_rebind(get(a[0]), &err); }

static void hook_forget(char **a) { status = tiller_hook_forget_sequence(get(a[0]), atoi(a[1]), &err); }

static void *set_plan_apart(void *user) {
    char **a = (char **) user;
    status = tiller_hook_set_plan(get(a[0]), get(a[1]), &err);
    return NULL;
}

/* From another thread. */
static void hook_set_plan_apart(char **a) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, set_plan_apart, a) != 0 || pthread_join(thread, NULL) != 0) abort();
}

static void hook_set_plan(char **a) { status = tiller_hook_set_plan(get(a[0]), get(a[1]), &err); }

static void hook_vector(char **a) {
    status = tiller_hook_set_plan(get(a[0]), get(a[1]), &err);
    if (status == TILLER_OK) out(truth(tiller_hook_has_control_vector(get(a[0]))));
}

static void hook_announce(char **a) {
    size_t n;
    const tiller_row *list = rows(a[1], &n);
    status = tiller_hook_announce(get(a[0]), list, n, &err);
}

static void hook_capture(char **a) {
    const tiller_point points[1] = {point(a[1])};
    status = tiller_hook_capture(get(a[0]), points, a[1][0] != '-', &err);
}

static void hook_architecture(char **a) { status = tiller_hook_set_architecture(get(a[0]), a[1], &err); }

static int add_one(void *user, float *data, size_t d_model, const tiller_row *rows, size_t n_rows) {
    (void) rows;
    for (size_t i = 0; i < n_rows * d_model; i++) data[i] += 1;
    return user == NULL;
}

/* Adds one to every number, and fails if it is not asked for: NULL takes it away. */
static void hook_patch(char **a) {
    status = tiller_hook_patch(get(a[0]), point(a[1]), number(a[2]) ? add_one : NULL, get(a[0]), &err);
}

static void hook_captured(char **a) {
    tiller_captured *captured = NULL;
    status = tiller_hook_captured(get(a[0]), point(a[1]), &captured, &err);
    const size_t n = tiller_captured_n_rows(captured);
    if (n > 0) out_floats(tiller_captured_data(captured), n * tiller_captured_d_model(captured));
    for (size_t i = 0; i < n; i++) out_row(&tiller_captured_tokens(captured)[i]);
    tiller_captured_free(captured);
}

static void hook_stop_after(char **a) { status = tiller_hook_stop_after(get(a[0]), atoi(a[1]), &err); }

static void out_report(const tiller_report *r) {
    const uint64_t counts[] = {
        r->graphs, r->foreign_graphs, r->rows_seen, r->rows_edited, r->rows_not_needed, r->rows_refused, r->rows_restored,
        r->rows_captured,
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) out("%s%llu", i ? " " : "", (unsigned long long) counts[i]);
}

static void hook_finish(char **a) {
    tiller_report report;
    memset(&report, 0, sizeof report);
    report.size = sizeof report;
    status = tiller_hook_finish(get(a[0]), &report, &err);
    if (status == TILLER_OK) out_report(&report);
    /* The report is filled in either case. */
    if (status != TILLER_OK && report.n_faults == 0) status = TILLER_OK;
}

/* What is not a number is not there. */
static void out_mean(double x) { x == x ? out(" %.5g", x) : out(" -"); }

/* The counts; "| rows unjudged code size" for each rule; "! STATUS count what" for each fault. */
static void out_ledger(const tiller_ledger *ledger) {
    tiller_report report;
    report.size = sizeof report;
    status = tiller_ledger_report(ledger, &report, &err);
    if (status == TILLER_OK) out_report(&report);
    for (size_t i = 0; i < tiller_ledger_n_rules(ledger) && status == TILLER_OK; i++) {
        tiller_rule_report rule;
        rule.size = sizeof rule;
        status = tiller_ledger_rule(ledger, i, &rule, &err);
        if (status != TILLER_OK) return;
        out(" | %llu %llu", (unsigned long long) rule.rows, (unsigned long long) rule.rows_unjudged);
        out_mean(rule.mean_code);
        out_mean(rule.relative_size);
    }
    if (status == TILLER_OK && report.n_faults != tiller_ledger_n_faults(ledger)) out(" (wrong number of faults)");
    for (size_t i = 0; i < tiller_ledger_n_faults(ledger) && status == TILLER_OK; i++) {
        tiller_fault fault;
        fault.size = sizeof fault;
        status = tiller_ledger_fault(ledger, i, &fault, &err);
        if (status != TILLER_OK) return;
        out(" ! %s %llu %s", status_name(fault.status), (unsigned long long) fault.count, fault.what);
    }
}

static void hook_ledger(char **a) {
    tiller_ledger *ledger = NULL;
    status = tiller_hook_ledger(get(a[0]), &ledger, &err);
    if (status == TILLER_OK) out_ledger(ledger);
    tiller_ledger_free(ledger);
}

#ifdef TILLER_ENGINE
#include "runner_engine.inc"
#endif

/* ---- The table of operations ---- */

static const struct {
    const char *name;
    void (*run)(char **);
} operations[] = {
#define OPERATION(name) {#name, name}
    OPERATION(version), OPERATION(dictionary_new), OPERATION(dictionary_open), OPERATION(dictionary_info),
    OPERATION(dictionary_stats), OPERATION(dictionary_encode), OPERATION(dictionary_encode_rows),
    OPERATION(dictionary_decode), OPERATION(dictionary_encoder_row), OPERATION(dictionary_decoder_row),
    OPERATION(dictionary_save), OPERATION(dictionary_open_as), OPERATION(dictionary_convert),
    OPERATION(dictionary_encode_file), OPERATION(dictionary_decode_file), OPERATION(dictionary_diagnose),
    OPERATION(diagnosis_get), OPERATION(diagnosis_verdict), OPERATION(diagnosis_tried),
    OPERATION(dictionary_save_saelens), OPERATION(dictionary_save_sparsify), OPERATION(dictionary_select), OPERATION(slice_new),
    OPERATION(slice_encode), OPERATION(slice_edit), {"free", free_},
    OPERATION(gguf_open), OPERATION(gguf_value), OPERATION(gguf_has), OPERATION(gguf_tensor), OPERATION(model_open),
    OPERATION(model_info), OPERATION(model_fingerprint_length), OPERATION(model_token_text),
    OPERATION(model_token_bytes), OPERATION(model_output_norm), OPERATION(model_unembedding_row),
    OPERATION(model_check), OPERATION(vocabulary_new), OPERATION(vocabulary_open), OPERATION(vocabulary_word),
    OPERATION(vocabulary_save), OPERATION(explanations_open), OPERATION(explanations_feature),
    OPERATION(explanations_words), OPERATION(explanations_json), OPERATION(explanations_find), OPERATION(explanations_find_label), OPERATION(match),
    OPERATION(explanations_unknown), OPERATION(explanations_label), OPERATION(explanations_save_labels),
    OPERATION(explanations_load_labels), OPERATION(explanations_save), OPERATION(plan_parse), OPERATION(plan_open),
    OPERATION(plan_for), OPERATION(plan_scaled), OPERATION(plan_json), OPERATION(plan_save), OPERATION(plan_compile),
    OPERATION(compiled_check), OPERATION(compiled_control_vector), OPERATION(compiled_apply),
    OPERATION(control_vector_new), OPERATION(control_vector_open), OPERATION(control_vector_add),
    OPERATION(control_vector_data), OPERATION(control_vector_save), OPERATION(coder_train),
    OPERATION(coder_open), OPERATION(coder_save), OPERATION(coder_code), OPERATION(coder_dictionary),
    OPERATION(concepts_new), OPERATION(concepts_add), OPERATION(dictionary_mpc), OPERATION(coder_mpc),
    OPERATION(direction), OPERATION(probe_fit), OPERATION(probe_open), OPERATION(probe_save), OPERATION(hook_new), OPERATION(ggml_probe), OPERATION(hook_graph),
    OPERATION(temporal_open), OPERATION(temporal_save), OPERATION(temporal_info), OPERATION(temporal_weights),
    OPERATION(temporal_response), OPERATION(temporal_direction),
    OPERATION(hook_set_plan), OPERATION(hook_vector), OPERATION(hook_announce), OPERATION(hook_capture),
    OPERATION(hook_captured), OPERATION(hook_architecture), OPERATION(hook_patch), OPERATION(hook_stop_after),
    OPERATION(hook_finish), OPERATION(hook_ledger), OPERATION(hook_check_plan), OPERATION(hook_sequences),
    OPERATION(hook_rebind), OPERATION(hook_forget), OPERATION(hook_set_plan_apart), OPERATION(hook_intrusion),
#ifdef TILLER_ENGINE
    ENGINE_OPERATIONS
#endif
};

static void run(char **fields, int n, const char **status_out, const char **result_out) {
    char *arguments[MOST_ARGUMENTS] = {NULL};
    for (int i = 1; i < n; i++) arguments[i - 1] = fields[i];
    tiller_error_free(err);
    err = NULL;
    status = TILLER_OK;
    result_length = 0;
    result[0] = '\0';
    *status_out = "no such operation";
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, fields[0]) != 0) continue;
        operations[i].run(arguments);
        *status_out = status_name(status);
        /* A status and its error come together, or not at all. */
        if (tiller_error_status(err) != status) *status_out = "status and error differ";
    }
    *result_out = status == TILLER_OK ? result : tiller_error_message(err);
    while (n_memory > 0) free(memory[--n_memory]);
}

/* NULL is an error or nothing, never a crash; and nothing is written that was not asked for. */
static bool fake_is_host(void *buffer) { return buffer == NULL; }

static int null_is_safe(void) {
    int failures = 0;
#define CHECK(x) \
    if (!(x)) failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x)
    tiller_dictionary *d = (tiller_dictionary *) &failures; /* not a dictionary: must not be looked at or freed */
    CHECK(tiller_dictionary_open(NULL, &d, NULL) == TILLER_E_ARGUMENT && d == (tiller_dictionary *) &failures);
    CHECK(tiller_dictionary_open("x", NULL, NULL) == TILLER_E_ARGUMENT);
    CHECK(tiller_dictionary_encode(NULL, NULL, 0, NULL, 0, NULL) == TILLER_E_ARGUMENT);
    CHECK(tiller_dictionary_n_features(NULL) == 0 && tiller_model_n_layer(NULL) == 0);
    CHECK(strcmp(tiller_error_message(NULL), "no error") == 0 && tiller_error_status(NULL) == TILLER_OK);
    CHECK(tiller_error_hint(NULL) == NULL);
    tiller_error *e = (tiller_error *) &failures;
    CHECK(tiller_dictionary_open("/nowhere", &d, &e) == TILLER_E_IO && e != (tiller_error *) &failures);
    tiller_error_free(e);
    struct ggml_tensor *no_tensor = NULL;
    CHECK(tiller_hook_eval(no_tensor, false, NULL) && !tiller_hook_eval(no_tensor, true, NULL));
    tiller_ggml ggml = fake_ggml();
    tiller_hook *h = NULL;
    ggml.get = NULL;
    CHECK(tiller_hook_new(&ggml, &h, NULL) == TILLER_E_ARGUMENT && h == NULL);
    ggml = fake_ggml();
    ggml.layout.tensor_size = 64; /* beside functions that look at fields */
    CHECK(tiller_hook_new(&ggml, &h, NULL) == TILLER_E_ARGUMENT && h == NULL);
    ggml.dtype = NULL, ggml.shape = NULL, ggml.data = NULL, ggml.src = NULL;
    CHECK(tiller_hook_new(&ggml, &h, NULL) == TILLER_E_ARGUMENT && h == NULL); /* is_host is NULL */
    ggml.layout.is_host = fake_is_host;
    ggml.layout.shape = 40; /* 32 bytes that end at 72 */
    CHECK(tiller_hook_new(&ggml, &h, NULL) == TILLER_E_ARGUMENT && h == NULL);
    ggml.layout.shape = 32;
    CHECK(tiller_hook_new(&ggml, &h, NULL) == TILLER_OK);
    tiller_hook_free(h), h = NULL;
    ggml = fake_ggml();
    ggml.src = NULL;
    CHECK(tiller_hook_new(&ggml, &h, NULL) == TILLER_E_ARGUMENT && h == NULL);
    ggml = fake_ggml();
    CHECK(tiller_hook_new(&ggml, &h, NULL) == TILLER_OK);
    tiller_report report;
    memset(&report, 0, sizeof report);
    CHECK(tiller_hook_finish(h, NULL, NULL) == TILLER_OK);
    CHECK(tiller_hook_finish(h, &report, NULL) == TILLER_E_ARGUMENT); /* size is 0 */
    CHECK(tiller_hook_ledger(h, NULL, NULL) == TILLER_E_ARGUMENT);
    tiller_ledger *l = NULL;
    tiller_fault fault;
    fault.size = sizeof fault;
    CHECK(tiller_hook_ledger(h, &l, NULL) == TILLER_OK && tiller_ledger_n_faults(l) == 0 && tiller_ledger_n_rules(l) == 0);
    CHECK(tiller_ledger_fault(l, 0, &fault, NULL) == TILLER_E_ARGUMENT);
    CHECK(tiller_ledger_report(NULL, &report, NULL) == TILLER_E_ARGUMENT && tiller_ledger_n_faults(NULL) == 0);
    tiller_ledger_free(l), tiller_ledger_free(NULL), tiller_hook_free(h);
    tiller_dictionary_parts parts;
    memset(&parts, 0, sizeof parts);
    CHECK(tiller_dictionary_new(&parts, &d, NULL) == TILLER_E_ARGUMENT); /* size is 0 */
    tiller_error_free(NULL), tiller_text_free(NULL), tiller_gguf_free(NULL), tiller_dictionary_free(NULL);
    tiller_codes_free(NULL), tiller_slice_free(NULL), tiller_model_free(NULL), tiller_vocabulary_free(NULL);
    tiller_explanations_free(NULL), tiller_matches_free(NULL), tiller_plan_free(NULL), tiller_compiled_free(NULL);
    tiller_control_vector_free(NULL), tiller_temporal_free(NULL), tiller_hook_free(NULL), tiller_captured_free(NULL);
    return failures;
}

int main(int argc, char **argv) {
    int failures = null_is_safe();
    for (int i = 1; i < argc; i++) failures += run_table(argv[i], run);
    tiller_error_free(err);
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        if (slots[i].handle) slots[i].release(slots[i].handle);
    }
    return failures != 0;
}
