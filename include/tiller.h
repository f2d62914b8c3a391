/* tiller.h - steer what a quantized language model says, by features that people can read.
 *
 * Made from src/capi by `TILLER_BLESS=1 cargo test --test header`; do not edit.
 *
 * Errors     Every call that can fail returns a tiller_status and takes `tiller_error **err` last. `err` may be
 *            NULL. On failure `*err` owns a new error; on success it is not written. Nothing is printed, nothing
 *            aborts, and no call looks at the environment.
 * Ownership  A `T **out` that a call fills is yours, on success only; free it with the `_free` of its type. Every
 *            other pointer is borrowed for the call. Frees may come in any order, and take NULL.
 * Threads    `const T *` may be used from several threads at once; `T *` by one at a time. There is no global
 *            state, and no thread outlives the call that started it.
 * Texts      UTF-8, NUL-terminated. Paths are bytes on Unix, UTF-8 on Windows.
 * Options    An option struct starts with `uint32_t size`: set it to sizeof, and everything else to zero or to
 *            what you want; zero means the default. NULL means that everything is default. A struct only grows.
 * Choices    Go in as uint32_t, so that a number from a newer header is an error and not undefined.
 *
 * A library built with its own llama.cpp also has the functions under TILLER_ENGINE: define it before this header.
 * One built without (`cargo build --no-default-features`) has all the others.
 */
#ifndef TILLER_H
#define TILLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef TILLER_API
#define TILLER_API
#endif

struct ggml_tensor; /* ggml.h */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Errors ---------------------------------------------------------------------------------------------- */

// Result of every call that can fail. 0 is success; names are stable, values are never reused.
typedef enum {
    // The call did what it says.
    TILLER_OK = 0,
    // An argument broke the documented contract (NULL, wrong length, out of range).
    TILLER_E_ARGUMENT = 1,
    // The operating system refused: a file is missing, unreadable, or the disk is full.
    TILLER_E_IO = 2,
    // A file or text is not what its format says it should be.
    TILLER_E_FORMAT = 3,
    // The input is valid, but this build or version cannot handle it.
    TILLER_E_UNSUPPORTED = 4,
    // Two things that were put together do not belong together (dictionary and model, plan and dictionary).
    TILLER_E_MISMATCH = 5,
    // A computation met NaN, infinity or a singular system.
    TILLER_E_NUMERIC = 6,
    // Your progress or stream function asked to stop.
    TILLER_E_CANCELLED = 7,
    // A bug in this library, or a system out of threads. The handles passed in may only be freed.
    TILLER_E_PANIC = 8,
} tiller_status;

// Why a call failed. Owned by the caller; free with tiller_error_free().
//
// Thread safety: immutable; may be read from any thread.
typedef struct tiller_error tiller_error;

// The message: English, UTF-8, no final newline; it names the file, the place, what was expected and what was
// found. Never NULL.
//
// Borrowed: valid until `error` is freed.
TILLER_API const char *tiller_error_message(const tiller_error *error);

// The status that came with `error`. TILLER_OK if `error` is NULL.
TILLER_API tiller_status tiller_error_status(const tiller_error *error);

// Frees `error`. NULL is a no-op.
TILLER_API void tiller_error_free(tiller_error *error);

/* ---- Texts and version ----------------------------------------------------------------------------------- */

// A text that a call made: UTF-8, unless the call says otherwise, followed by a NUL. Owned by the caller; free with
// tiller_text_free().
//
// Thread safety: immutable; may be read from any thread.
typedef struct tiller_text tiller_text;

// The text. "" if `text` is NULL. Borrowed: valid until `text` is freed.
TILLER_API const char *tiller_text_data(const tiller_text *text);

// Its length in bytes, without the NUL. 0 if `text` is NULL.
TILLER_API size_t tiller_text_length(const tiller_text *text);

// Frees `text`. NULL is a no-op.
TILLER_API void tiller_text_free(tiller_text *text);

// The version of the library that runs, such as "0.1.0". Never NULL; static.
TILLER_API const char *tiller_version(void);

// Whether this library was built with its own llama.cpp, so that the functions under TILLER_ENGINE are in it.
TILLER_API bool tiller_has_engine(void);

/* ---- Progress -------------------------------------------------------------------------------------------- */

// How long work tells you where it is, and how you stop it.
//
// Called now and then, on the thread that made the call. `done` and `total` count tokens, rows or features, as the
// call says; `total` is 0 when unknown. `note` is one line on the state, borrowed for this call, never NULL.
// Return 0 to go on, anything else to cancel: the call then returns TILLER_E_CANCELLED.
typedef int (*tiller_progress_fn)(void *user, uint64_t done, uint64_t total, const char *note);

// A progress function and what it is called with. Pass NULL where you don't care.
typedef struct {
    // May be NULL.
    tiller_progress_fn call;
    // Given back to `call`, never looked at.
    void *user;
} tiller_progress;

/* ---- GGUF files ------------------------------------------------------------------------------------------ */

// A GGUF file, mapped read-only and checked: every offset and length that it names lies inside it.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_gguf tiller_gguf;

// A tensor of a GGUF file.
typedef struct {
    // Set it to sizeof(tiller_tensor) before the call.
    uint32_t size;
    // ggml's number of the element type.
    uint32_t dtype;
    // Its name; valid until the file is freed.
    const char *name;
    // The extents, the contiguous one first; unused ones are 1.
    uint64_t shape[4];
    // Its bytes, inside the mapped file; valid until the file is freed. Not aligned beyond what the file says.
    const void *data;
    // How many bytes.
    uint64_t n_bytes;
} tiller_tensor;

// Opens a GGUF file.
//
// On success `*out` owns a new object; free it with tiller_gguf_free().
TILLER_API tiller_status tiller_gguf_open(const char *file, tiller_gguf **out, tiller_error **err);

// Number of metadata keys. 0 if `gguf` is NULL.
TILLER_API size_t tiller_gguf_n_keys(const tiller_gguf *gguf);

// The `i`-th key, in the order of the file; NULL if there is none. Valid until `gguf` is freed.
TILLER_API const char *tiller_gguf_key(const tiller_gguf *gguf, size_t i);

// The value of `key` as JSON: a number, true, false, a string or an array.
TILLER_API
tiller_status tiller_gguf_value(const tiller_gguf *gguf,
                                const char *key,
                                tiller_text **out,
                                tiller_error **err);

// Number of tensors. 0 if `gguf` is NULL.
TILLER_API size_t tiller_gguf_n_tensors(const tiller_gguf *gguf);

// The `i`-th tensor, in the order of the file.
TILLER_API
tiller_status tiller_gguf_tensor(const tiller_gguf *gguf,
                                 size_t i,
                                 tiller_tensor *out,
                                 tiller_error **err);

// Frees `gguf`. What was read from it by address is gone. NULL is a no-op.
TILLER_API void tiller_gguf_free(tiller_gguf *gguf);

/* ---- Dictionaries ---------------------------------------------------------------------------------------- */

// A dictionary of features over one point of the residual stream, mapped read-only: opening one of a gigabyte costs
// milliseconds, and only the rows that are used are read.
//
// Its life: tiller_dictionary_open(); tiller_dictionary_check_model(); use it in tiller_plan_compile(), or encode with
// it; tiller_dictionary_free().
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_dictionary tiller_dictionary;

// What a feature did on the data that the dictionary was trained or measured on.
typedef struct {
    // Share of rows in which it was active.
    float density;
    // Largest activation.
    float max;
    // Mean of its positive activations.
    float mean;
} tiller_stats;

// A dictionary in memory. Matrices are row-major, one row of `d_model` floats a feature. Everything is copied.
typedef struct {
    // sizeof(tiller_dictionary_parts).
    uint32_t size;
    // 0 ReLU, 1 TopK, 2 BatchTopK, 3 JumpReLU, 4 gated.
    uint32_t activation;
    // Width of the residual stream.
    uint64_t d_model;
    // Number of features.
    uint64_t n_features;
    // Features a row, of TopK and BatchTopK.
    uint64_t k;
    // n_features * d_model floats.
    const float *encoder;
    // n_features * d_model floats.
    const float *decoder;
    // n_features floats; of gated dictionaries the bias of the magnitude. NULL means zeros.
    const float *encoder_bias;
    // d_model floats. NULL means zeros.
    const float *decoder_bias;
    // n_features floats, or NULL: JumpReLU needs thresholds, TopK may bring them for slices.
    const float *threshold;
    // n_features floats, of gated dictionaries.
    const float *gate_bias;
    // n_features floats, of gated dictionaries: magnitudes are scaled by exp() of them.
    const float *gate_log_scale;
    // n_features structs, or NULL.
    const tiller_stats *stats;
    // 1 leaves the decoder bias in the input instead of subtracting it.
    uint32_t keep_decoder_bias;
    // 1 if `layer` is given.
    uint32_t has_layer;
    // The block whose output it reads.
    uint32_t layer;
    // Always 0.
    uint32_t reserved;
    // A name for people, or NULL; so are the others.
    const char *name;
    // The model that it belongs to.
    const char *model_name;
    // That model's fingerprint.
    const char *model_fingerprint;
    // The hook point.
    const char *hook_point;
    // How it was trained.
    const char *recipe;
} tiller_dictionary_parts;

// What a dictionary is.
typedef struct {
    // Set it to sizeof(tiller_dictionary_info) before the call.
    uint32_t size;
    // 0 ReLU, 1 TopK, 2 BatchTopK, 3 JumpReLU, 4 gated.
    uint32_t activation;
    // Width of the residual stream.
    uint64_t d_model;
    // Number of features.
    uint64_t n_features;
    // Features a row, of TopK and BatchTopK; else 0.
    uint64_t k;
    // The block whose output it reads; -1 if unknown.
    int32_t layer;
    // 1 if it has statistics of its features.
    uint32_t has_stats;
    // How its weights are stored: "F32", "F16", "BF16" or "Q8_0". Static.
    const char *storage;
    // A name for people. Valid, like those below, until the dictionary is freed; "" if unknown.
    const char *name;
    // The model it was trained on.
    const char *model_name;
    // That model's fingerprint.
    const char *model_fingerprint;
    // The hook point in the naming of TransformerLens, such as "blocks.19.hook_resid_post".
    const char *hook_point;
    // How it was trained.
    const char *recipe;
    // What a reader should know about an import, a line each.
    const char *notes;
} tiller_dictionary_info;

// Opens a dictionary: one of our GGUF files, or the directory or file of another program.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
TILLER_API
tiller_status tiller_dictionary_open(const char *file,
                                     tiller_dictionary **out,
                                     tiller_error **err);

// Makes a dictionary from weights in memory.
TILLER_API
tiller_status tiller_dictionary_new(const tiller_dictionary_parts *parts,
                                    tiller_dictionary **out,
                                    tiller_error **err);

// What the dictionary is.
TILLER_API
tiller_status tiller_dictionary_get_info(const tiller_dictionary *dictionary,
                                         tiller_dictionary_info *out,
                                         tiller_error **err);

// Number of features. 0 if `dictionary` is NULL.
TILLER_API size_t tiller_dictionary_n_features(const tiller_dictionary *dictionary);

// Width of the residual stream. 0 if `dictionary` is NULL.
TILLER_API size_t tiller_dictionary_d_model(const tiller_dictionary *dictionary);

// What a feature did on data. TILLER_E_UNSUPPORTED if the dictionary has no statistics.
TILLER_API
tiller_status tiller_dictionary_stats(const tiller_dictionary *dictionary,
                                      uint32_t feature,
                                      tiller_stats *out,
                                      tiller_error **err);

// Writes the dictionary as one of our GGUF files, its weights as `storage`: "F32", "F16", "BF16" or "Q8_0".
TILLER_API
tiller_status tiller_dictionary_save(const tiller_dictionary *dictionary,
                                     const char *file,
                                     const char *storage,
                                     tiller_error **err);

// Frees `dictionary`. What was made from it stays valid. NULL is a no-op.
TILLER_API void tiller_dictionary_free(tiller_dictionary *dictionary);

/* ---- Encoding and decoding ------------------------------------------------------------------------------- */

// The active features of each of many rows.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_codes tiller_codes;

// A few features of a dictionary, to encode and edit them at the cost of their own rows.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_slice tiller_slice;

// An active feature of a row.
typedef struct {
    // Its number.
    uint32_t feature;
    // Its activation, above 0.
    float activation;
} tiller_code;

// Encodes one row of `n_row` = d_model floats to `n_activations` = n_features activations.
TILLER_API
tiller_status tiller_dictionary_encode(const tiller_dictionary *dictionary,
                                       const float *row,
                                       size_t n_row,
                                       float *activations,
                                       size_t n_activations,
                                       tiller_error **err);

// Encodes `n_data` / d_model rows, row by row in `data`, on `threads` threads (0 means 1).
//
// On success `*out` owns a new object; free it with tiller_codes_free().
TILLER_API
tiller_status tiller_dictionary_encode_rows(const tiller_dictionary *dictionary,
                                            const float *data,
                                            size_t n_data,
                                            uint32_t threads,
                                            tiller_codes **out,
                                            tiller_error **err);

// Number of rows. 0 if `codes` is NULL.
TILLER_API size_t tiller_codes_n_rows(const tiller_codes *codes);

// The active features of row `i`, ascending, and their number in `*n`; NULL and 0 if there is no such row. Valid until
// `codes` is freed.
TILLER_API
const tiller_code *tiller_codes_row(const tiller_codes *codes,
                                    size_t i,
                                    size_t *n);

// Frees `codes`. NULL is a no-op.
TILLER_API void tiller_codes_free(tiller_codes *codes);

// Decodes `n_codes` active features to `n_row` = d_model floats, in the units of the dictionary's input.
TILLER_API
tiller_status tiller_dictionary_decode(const tiller_dictionary *dictionary,
                                       const tiller_code *codes,
                                       size_t n_codes,
                                       float *row,
                                       size_t n_row,
                                       tiller_error **err);

// The encoder row of a feature, as `n_row` = d_model floats.
TILLER_API
tiller_status tiller_dictionary_encoder_row(const tiller_dictionary *dictionary,
                                            uint32_t feature,
                                            float *row,
                                            size_t n_row,
                                            tiller_error **err);

// The decoder row of a feature, its direction, as `n_row` = d_model floats.
TILLER_API
tiller_status tiller_dictionary_decoder_row(const tiller_dictionary *dictionary,
                                            uint32_t feature,
                                            float *row,
                                            size_t n_row,
                                            tiller_error **err);

// Takes `n_features` features out of the dictionary. Keeps its own reference.
//
// On success `*out` owns a new slice; free it with tiller_slice_free().
TILLER_API
tiller_status tiller_dictionary_slice(const tiller_dictionary *dictionary,
                                      const uint32_t *features,
                                      size_t n_features,
                                      tiller_slice **out,
                                      tiller_error **err);

// Number of features. 0 if `slice` is NULL.
TILLER_API size_t tiller_slice_length(const tiller_slice *slice);

// Whether tiller_slice_encode() gives exactly what tiller_dictionary_encode() gives. False for TopK dictionaries, whose
// slices go by a threshold for each feature.
TILLER_API
bool tiller_slice_is_exact(const tiller_slice *slice);

// Encodes one row of `n_row` = d_model floats to the activations of the slice's features, in their order.
TILLER_API
tiller_status tiller_slice_encode(const tiller_slice *features,
                                  const float *row,
                                  size_t n_row,
                                  float *activations,
                                  size_t n_activations,
                                  tiller_error **err);

// Changes the activations of the slice's features in a row by `n_deltas` = tiller_slice_length() amounts, and keeps what
// the dictionary does not explain: row += sum of deltas[j] * decoder row of feature j.
TILLER_API
tiller_status tiller_slice_edit(const tiller_slice *features,
                                const float *deltas,
                                size_t n_deltas,
                                float *row,
                                size_t n_row,
                                tiller_error **err);

// Frees `slice`. NULL is a no-op.
TILLER_API void tiller_slice_free(tiller_slice *slice);

/* ---- Models ---------------------------------------------------------------------------------------------- */

// A GGUF language model seen from outside: sizes, vocabulary, unembedding. It is mapped, not run.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_model tiller_model;

// Opens a GGUF model.
//
// On success `*out` owns a new object; free it with tiller_model_free().
TILLER_API tiller_status tiller_model_open(const char *file, tiller_model **out, tiller_error **err);

// Its architecture, such as "llama". Valid, like the three below, until `model` is freed.
TILLER_API const char *tiller_model_architecture(const tiller_model *model);

// Its own name.
TILLER_API const char *tiller_model_name(const tiller_model *model);

// The name of its quantization, such as "Q4_K_M".
TILLER_API const char *tiller_model_quantization(const tiller_model *model);

// What binds dictionaries to it: 64 hexadecimal digits from its architecture, sizes, vocabulary and weights.
TILLER_API const char *tiller_model_fingerprint(const tiller_model *model);

// Number of blocks. 0 if `model` is NULL.
TILLER_API size_t tiller_model_n_layer(const tiller_model *model);

// Width of the residual stream. 0 if `model` is NULL.
TILLER_API size_t tiller_model_d_model(const tiller_model *model);

// Number of tokens of the vocabulary. 0 if `model` is NULL.
TILLER_API size_t tiller_model_n_vocab(const tiller_model *model);

// Tokens that it was trained to see at once. 0 if `model` is NULL.
TILLER_API size_t tiller_model_context_length(const tiller_model *model);

// Whether the unembedding is the embedding.
TILLER_API bool tiller_model_tied_unembedding(const tiller_model *model);

// The token that begins a text; -1 if there is none.
TILLER_API int32_t tiller_model_bos(const tiller_model *model);

// The token that ends a text; -1 if there is none.
TILLER_API int32_t tiller_model_eos(const tiller_model *model);

// Whether tokenizing puts tiller_model_bos() in front.
TILLER_API bool tiller_model_add_bos(const tiller_model *model);

// The text of a token as the file holds it.
TILLER_API
tiller_status tiller_model_token_text(const tiller_model *model,
                                      int32_t token,
                                      tiller_text **out,
                                      tiller_error **err);

// The bytes that a token adds to a text. They may be a part of a character, or hold a NUL: go by tiller_text_length().
TILLER_API
tiller_status tiller_model_token_bytes(const tiller_model *model,
                                       int32_t token,
                                       tiller_text **out,
                                       tiller_error **err);

// The weight of the final norm, as `n` = d_model floats, and what it adds to the mean square before the root in
// `*epsilon` (may be NULL).
TILLER_API
tiller_status tiller_model_output_norm(const tiller_model *model,
                                       float *weight,
                                       size_t n,
                                       float *epsilon,
                                       tiller_error **err);

// The row of the unembedding for a token, dequantized, as `n` = d_model floats.
TILLER_API
tiller_status tiller_model_unembedding_row(const tiller_model *model,
                                           int32_t token,
                                           float *row,
                                           size_t n,
                                           tiller_error **err);

// Checks that `dictionary` belongs to `model`: another width or a missing layer is TILLER_E_MISMATCH. Another
// fingerprint, as of another quantization, is a warning: then `*warning` (if `warning` is not NULL) owns its text,
// which is empty if there is nothing to warn of.
TILLER_API
tiller_status tiller_model_check(const tiller_model *model,
                                 const tiller_dictionary *dictionary,
                                 tiller_text **warning,
                                 tiller_error **err);

// Frees `model`. NULL is a no-op.
TILLER_API void tiller_model_free(tiller_model *model);

/* ---- Explanations ---------------------------------------------------------------------------------------- */

// What the features of a dictionary mean, in words: a JSONL file with one feature a line.
//
// Thread safety: one thread at a time.
typedef struct tiller_explanations tiller_explanations;

// Features that a search found, best first.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_matches tiller_matches;

// The words that explanations are made of: the most frequent ones of the training text, each once.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_vocabulary tiller_vocabulary;

// How to search. Zero means the default.
typedef struct {
    // sizeof(tiller_find).
    uint32_t size;
    // Features that fire on a larger share of the tokens are left out; 0 means 0.1.
    float max_density;
    // What a word counts that a feature's explanation lacks, above 0 and below 1; 0 means 0.02.
    float floor;
} tiller_find;

// One of them.
typedef struct {
    // Set it to sizeof(tiller_match) before the call.
    uint32_t size;
    // Its number in the dictionary.
    uint32_t feature;
    // How well it means all the words, above 0 and at most 1.
    float score;
    // Its score relative to the best match: its weight in a plan.
    float weight;
    // The share of tokens on which it fires; negative if unknown.
    float density;
    // Its mean activation where it fires; negative if unknown.
    float mean;
    // Its best words, parted by spaces. Valid, like the others, until the matches are freed.
    const char *words;
    // The words of the query that are among them, parted by spaces.
    const char *matched;
    // Its label, or "".
    const char *label;
} tiller_match;

// The `n_words` most frequent words of `n_texts` texts.
//
// On success `*out` owns a new object; free it with tiller_vocabulary_free().
TILLER_API
tiller_status tiller_vocabulary_new(const char *const *strings,
                                    size_t n_texts,
                                    size_t n_words,
                                    tiller_vocabulary **out,
                                    tiller_error **err);

// Reads what tiller_vocabulary_save() wrote.
TILLER_API
tiller_status tiller_vocabulary_open(const char *file,
                                     tiller_vocabulary **out,
                                     tiller_error **err);

// Number of words. 0 if `vocabulary` is NULL.
TILLER_API size_t tiller_vocabulary_n_words(const tiller_vocabulary *vocabulary);

// The word of `rank`, the most frequent one being 0.
TILLER_API
tiller_status tiller_vocabulary_word(const tiller_vocabulary *vocabulary,
                                     size_t rank,
                                     tiller_text **out,
                                     tiller_error **err);

// Writes the words with their counts, as JSON.
TILLER_API
tiller_status tiller_vocabulary_save(const tiller_vocabulary *vocabulary,
                                     const char *file,
                                     tiller_error **err);

// Frees `vocabulary`. NULL is a no-op.
TILLER_API void tiller_vocabulary_free(tiller_vocabulary *vocabulary);

// Reads explanations.
//
// On success `*out` owns a new object; free it with tiller_explanations_free().
TILLER_API
tiller_status tiller_explanations_open(const char *file,
                                       tiller_explanations **out,
                                       tiller_error **err);

// Writes explanations; `file` is the old one or the new one, never half of it.
TILLER_API
tiller_status tiller_explanations_save(const tiller_explanations *explanations,
                                       const char *file,
                                       tiller_error **err);

// Number of features that have an explanation. 0 if `explanations` is NULL.
TILLER_API size_t tiller_explanations_length(const tiller_explanations *explanations);

// The number of the `i`-th feature that has one, in the order of the file; UINT32_MAX if there is none.
TILLER_API uint32_t tiller_explanations_feature(const tiller_explanations *explanations, size_t i);

// The best `n_words` words of a feature, parted by spaces.
TILLER_API
tiller_status tiller_explanations_words(const tiller_explanations *explanations,
                                        uint32_t feature,
                                        size_t n_words,
                                        tiller_text **out,
                                        tiller_error **err);

// All that is known of a feature, as JSON: feature, density, mean, label, words with their scores.
TILLER_API
tiller_status tiller_explanations_json(const tiller_explanations *explanations,
                                       uint32_t feature,
                                       tiller_text **out,
                                       tiller_error **err);

// Gives a feature a label, in place of any before; NULL takes it away.
TILLER_API
tiller_status tiller_explanations_set_label(tiller_explanations *explanations,
                                            uint32_t feature,
                                            const char *label,
                                            tiller_error **err);

// Writes the labels as JSONL, `{"feature": 7, "label": "the sea"}` a line.
TILLER_API
tiller_status tiller_explanations_save_labels(const tiller_explanations *explanations,
                                              const char *file,
                                              tiller_error **err);

// Reads labels, from people or another program; `*n_labels` is how many (may be NULL). If the file is wrong, nothing
// changes.
TILLER_API
tiller_status tiller_explanations_load_labels(tiller_explanations *explanations,
                                              const char *file,
                                              size_t *n_labels,
                                              tiller_error **err);

// Frees `explanations`. NULL is a no-op.
TILLER_API void tiller_explanations_free(tiller_explanations *explanations);

// The at most `n_features` features that mean all of `n_words` words, best first.
//
// On success `*out` owns a new object, which may be empty; free it with tiller_matches_free().
TILLER_API
tiller_status tiller_explanations_find(const tiller_explanations *explanations,
                                       const char *const *words,
                                       size_t n_words,
                                       size_t n_features,
                                       const tiller_find *find,
                                       tiller_matches **out,
                                       tiller_error **err);

// The words of a query that no explanation holds, parted by spaces.
TILLER_API
tiller_status tiller_explanations_unknown_words(const tiller_explanations *explanations,
                                                const char *const *words,
                                                size_t n_words,
                                                tiller_text **out,
                                                tiller_error **err);

// How many were found. 0 if `matches` is NULL.
TILLER_API size_t tiller_matches_length(const tiller_matches *matches);

// The `i`-th match, the best one being 0.
TILLER_API
tiller_status tiller_matches_get(const tiller_matches *matches,
                                 size_t i,
                                 tiller_match *out,
                                 tiller_error **err);

// Frees `matches`. NULL is a no-op.
TILLER_API void tiller_matches_free(tiller_matches *matches);

#ifdef __cplusplus
}
#endif

#endif /* TILLER_H */
