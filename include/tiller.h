/* tiller.h - steer what a quantized language model says, by features that people can read.
 *
 * Made from src/capi by `TILLER_BLESS=1 cargo test --test header`; do not edit.
 *
 * Errors     Every call that can fail returns a tiller_status and takes `tiller_error **err` last. `err` may be
 *            NULL. On failure `*err` owns a new error; on success it is not written. Nothing is printed, and this
 *            library does not look at the environment (its llama.cpp does: GGML_* and LLAMA_*).
 * Aborts     What a call can still die of: memory that runs out in this library; a file that is made shorter while
 *            it is open, because files are mapped (SIGBUS); with the engine, an assertion that fails on one of
 *            ggml's own threads, or a crash in llama.cpp. What llama.cpp throws, and assertions that fail on the
 *            calling thread, come back as errors. A model file is checked before llama.cpp sees it; beyond these
 *            checks it is trusted.
 * Ownership  A `T **out` that a call fills is yours, on success only; free it with the `_free` of its type. Every
 *            other pointer is borrowed for the call. Frees may come in any order, and take NULL.
 * Threads    `const T *` may be used from several threads at once; `T *` by one at a time. There is no global
 *            state, and no thread outlives the call that started it but an engine's, which end with it.
 * Forks      A child may use everything but its parent's engines: their threads are not there, so their calls fail.
 *            It may free them, and open its own.
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

// What to do about it: one line, no final period. NULL where there is no more to say than the message does.
//
// Borrowed: valid until `error` is freed.
TILLER_API const char *tiller_error_hint(const tiller_error *error);

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
    // 0 ReLU, 1 TopK, 2 BatchTopK, 3 JumpReLU, 4 gated, 5 GroupMax.
    uint32_t activation;
    // Width of the residual stream.
    uint64_t d_model;
    // Number of features.
    uint64_t n_features;
    // Features a row, of TopK, BatchTopK and GroupMax.
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
    // 0 ReLU, 1 TopK, 2 BatchTopK, 3 JumpReLU, 4 gated, 5 GroupMax.
    uint32_t activation;
    // Width of the residual stream.
    uint64_t d_model;
    // Number of features.
    uint64_t n_features;
    // Features a row, of TopK, BatchTopK and GroupMax; else 0.
    uint64_t k;
    // The block whose output it reads; -1 if unknown, or if each feature has its own: tiller_dictionary_feature_layer().
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
    // Width of the rows that it writes: d_model of all but a few transcoders.
    uint64_t d_out;
    // The block at whose output its directions may be added; -1 if unknown.
    int32_t layer_out;
    // 1 if it writes at another place than it reads.
    uint32_t transcodes;
    // The hook point that a transcoder writes; else "".
    const char *hook_point_out;
} tiller_dictionary_info;

// What a type of storage costs: the cosine between a row and what was stored of it.
typedef struct {
    // Of the encoder's worst row.
    float encoder_min;
    // Over all rows of the encoder.
    float encoder_mean;
    // Of the decoder's worst row.
    float decoder_min;
    // Over all rows of the decoder.
    float decoder_mean;
} tiller_loss;

// Opens a dictionary: one of our GGUF files, or the directory or a file of another program, which is told by its
// contents.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
TILLER_API
tiller_status tiller_dictionary_open(const char *file,
                                     tiller_dictionary **out,
                                     tiller_error **err);

// The same, of a known family: "tiller", "saelens", "gemma_scope", "llama_scope", "sparsify", "dictionary_learning",
// "openai", "qwen_scope", "goodfire" or "transcoder"; NULL tells it by the contents. Where the files cannot be used as
// they lie, a converted copy in the directory `cache` is made once and mapped from then on; NULL converts in memory.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
TILLER_API
tiller_status tiller_dictionary_open_as(const char *file,
                                        const char *family,
                                        const char *cache,
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

// Width of the rows that it writes, d_model of all but a few transcoders. 0 if `dictionary` is NULL.
TILLER_API size_t tiller_dictionary_d_out(const tiller_dictionary *dictionary);

// The block at whose output a feature lives: of learned features each has its own, of others all have the dictionary's. -1 if
// unknown, or if there is no such feature.
TILLER_API
int32_t tiller_dictionary_feature_layer(const tiller_dictionary *dictionary,
                                        uint32_t feature);

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

// The same, and says in `*out` what the storage cost. Goes through the dictionary in bands, however large it is.
TILLER_API
tiller_status tiller_dictionary_convert(const tiller_dictionary *dictionary,
                                        const char *file,
                                        const char *storage,
                                        tiller_loss *out,
                                        tiller_error **err);

// Writes a directory that SAELens loads (SAE.load_from_disk). TILLER_E_UNSUPPORTED for what it has no name for.
TILLER_API
tiller_status tiller_dictionary_save_saelens(const tiller_dictionary *dictionary,
                                             const char *directory,
                                             tiller_error **err);

// Writes a directory that sparsify loads; it tells the module by the directory's name, such as "layers.10".
// TILLER_E_UNSUPPORTED for what it has no name for.
TILLER_API
tiller_status tiller_dictionary_save_sparsify(const tiller_dictionary *dictionary,
                                              const char *directory,
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

// Decodes `n_codes` active features to `n_row` = d_out floats (d_model but of some transcoders), in the units of the
// dictionary's input.
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

// The decoder row of a feature, its direction, as `n_row` = d_out floats (d_model but of some transcoders).
TILLER_API
tiller_status tiller_dictionary_decoder_row(const tiller_dictionary *dictionary,
                                            uint32_t feature,
                                            float *row,
                                            size_t n_row,
                                            tiller_error **err);

// A dictionary of `n_features` features of another, in that order, renumbered from 0.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
TILLER_API
tiller_status tiller_dictionary_select(const tiller_dictionary *dictionary,
                                       const uint32_t *features,
                                       size_t n_features,
                                       tiller_dictionary **out,
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

// The model that a plan is compiled for. tiller_model_target(), tiller_engine_target() and tiller_llama_target() of
// tiller_llama.h fill it.
typedef struct {
    // sizeof(tiller_target).
    uint32_t size;
    // Number of blocks.
    uint32_t n_layer;
    // Width of the residual stream.
    size_t d_model;
    // `general.architecture` of the GGUF file; NULL or "" if it is not known: sites inside a block are then taken on trust,
    // until a hook sees the graph.
    const char *architecture;
} tiller_target;

// Opens a GGUF model; of a model in several files, the first.
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

// What a plan for it is compiled against, for tiller_plan_compile(). `out->architecture` is valid until `model` is freed.
TILLER_API
tiller_status tiller_model_target(const tiller_model *model,
                                  tiller_target *out,
                                  tiller_error **err);

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
    // Its weight in a plan: its score relative to the best match, or by its lift.
    float weight;
    // The share of tokens on which it fires; negative if unknown.
    float density;
    // Its mean activation where it fires; negative if unknown.
    float mean;
    // By how many nats it makes the words likelier, as tiller_engine_rank() measured it; NaN if it did not.
    float lift;
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

// The at most `n_features` features whose label holds `label` in any case, in the order of their numbers.
//
// On success `*out` owns a new object, which may be empty; free it with tiller_matches_free().
TILLER_API
tiller_status tiller_explanations_find_label(const tiller_explanations *explanations,
                                             const char *label,
                                             size_t n_features,
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

/* ---- Harvested rows -------------------------------------------------------------------------------------- */

// Rows of a residual stream that were harvested: a directory of safetensors shards, mapped. NumPy and PyTorch read
// them without us.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_activations tiller_activations;

// Opens a directory of shards.
//
// On success `*out` owns a new object; free it with tiller_activations_free().
TILLER_API
tiller_status tiller_activations_open(const char *directory,
                                      tiller_activations **out,
                                      tiller_error **err);

// Number of rows. 0 if `activations` is NULL.
TILLER_API size_t tiller_activations_n_rows(const tiller_activations *activations);

// Width of a row. 0 if `activations` is NULL.
TILLER_API size_t tiller_activations_d_model(const tiller_activations *activations);

// The block after which the rows were read. 0 if `activations` is NULL.
TILLER_API size_t tiller_activations_layer(const tiller_activations *activations);

// The name of the model that they are of. Valid until `activations` is freed.
TILLER_API const char *tiller_activations_model(const tiller_activations *activations);

// The fingerprint of that model. Valid until `activations` is freed.
TILLER_API const char *tiller_activations_fingerprint(const tiller_activations *activations);

// Whether the whole text was harvested.
TILLER_API bool tiller_activations_complete(const tiller_activations *activations);

// Row `i` as `n` = d_model floats, with its token and its position in its window (each may be NULL).
TILLER_API
tiller_status tiller_activations_row(const tiller_activations *activations,
                                     size_t i,
                                     float *row,
                                     size_t n,
                                     int32_t *token,
                                     int32_t *position,
                                     tiller_error **err);

// Frees `activations`. NULL is a no-op.
TILLER_API void tiller_activations_free(tiller_activations *activations);

/* ---- Training -------------------------------------------------------------------------------------------- */

// How a dictionary is trained. Zero means the default.
typedef struct {
    // sizeof(tiller_train_options).
    uint32_t size;
    // Which rule keeps codes: 0 BatchTopK, 1 TopK, 2 Matryoshka, 3 ReLU, 4 P-annealing, 5 JumpReLU, 6 Gated. The last
    // four are led to k codes a row by the weight of their penalty.
    uint32_t variant;
    // Features of the dictionary; 0 means 4,096.
    uint32_t n_features;
    // Codes a row; 0 means 32.
    uint32_t k;
    // Rows in a step; 0 means 1,024.
    uint32_t batch;
    // Times that every row is seen; 0 means 4.
    uint32_t epochs;
    // The learning rate, for rows scaled to mean squared norm d_model; 0 means 3e-3.
    float lr;
    // Threads; 0 means all that the machine has. The result doesn't depend on it.
    uint32_t threads;
    // Chooses the start and the order of the rows.
    uint64_t seed;
    // Dead features that a row may use to explain what the live ones missed; 0 means 64.
    uint32_t aux_k;
    // 1 leaves dead features dead.
    uint32_t without_revival;
    // Steps of warm-up; 0 means 100.
    uint32_t warm_up;
    // Steps between two checkpoints; 0 means 500.
    uint32_t checkpoint_every;
} tiller_train_options;

// Trains a dictionary on the rows of `n_rows` directories, all of one model and layer. `checkpoint` is a file from which
// a run that was cancelled goes on, or NULL. Progress counts steps.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free(), after tiller_dictionary_save().
TILLER_API
tiller_status tiller_train(const tiller_activations *const *rows,
                           size_t n_rows,
                           const tiller_train_options *given,
                           const char *checkpoint,
                           const tiller_progress *progress,
                           tiller_dictionary **out,
                           tiller_error **err);

// As tiller_train(), by a recipe: all settings as JSON, such as the one that a trained dictionary carries, or as little
// as `{"variant":"jumprelu","k":32}`; what is left out has the variant's default, and an unknown name is an error.
// `threads` is 0 for all that the machine has. `metrics` is a file to which every step adds a line of JSON, or NULL.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free(), after tiller_dictionary_save().
TILLER_API
tiller_status tiller_train_recipe(const tiller_activations *const *rows,
                                  size_t n_rows,
                                  const char *recipe,
                                  uint32_t threads,
                                  const char *checkpoint,
                                  const char *metrics,
                                  const tiller_progress *progress,
                                  tiller_dictionary **out,
                                  tiller_error **err);

// As tiller_train_recipe(), for several dictionaries in one pass over the rows: `n` recipes, such as one for every
// sparsity, which may differ in all but `batch`, `epochs`, `seed` and `held_out`. Each dictionary comes out as on its own.
// `checkpoints` is NULL, or as many files as recipes. Memory grows with their number.
//
// On success `out`, an array of `n` places, owns as many new dictionaries, in the recipes' order; free each with
// tiller_dictionary_free(). On failure nothing is written to it.
TILLER_API
tiller_status tiller_train_many(const tiller_activations *const *rows,
                                size_t n_rows,
                                const char *const *recipes,
                                size_t n,
                                uint32_t threads,
                                const char *const *checkpoints,
                                const tiller_progress *progress,
                                tiller_dictionary **out,
                                tiller_error **err);

/* ---- Coders with dense codes ----------------------------------------------------------------------------- */

// A coder whose codes are dense: ConCA, whose codes are log-posteriors of concepts, or SSAE, which codes differences of
// rows. Row i of its decoder is the direction of code i. Its file is safetensors, which others read.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_coder tiller_coder;

// How a coder is trained. Zero means the default.
typedef struct {
    // sizeof(tiller_coder_options).
    uint32_t size;
    // What is minimised: 0 ConCA, 1 SSAE (rows are then differences).
    uint32_t objective;
    // What normalises codes: 0 LayerNorm, 1 GroupNorm, 2 BatchNorm, 3 Dropout.
    uint32_t regularizer;
    // Groups of a GroupNorm; 0 means 4.
    uint32_t groups;
    // The share that drops out; 0 means 0.1.
    float dropout;
    // ConCA's g: 0 SoftPlus, 1 SELU, 2 ELU.
    uint32_t sparsity;
    // Codes; 0 means 4,096.
    uint32_t n_latents;
    // Rows in a step; 0 means 2,048.
    uint32_t batch;
    // Steps; 0 means 2,000.
    uint32_t steps;
    // The learning rate; 0 means 1e-4 for ConCA, 1e-3 for SSAE.
    float lr;
    // ConCA's weight of g; 0 means 1e-4.
    float alpha;
    // SSAE's largest mean of |code|; 0 means 0.005.
    float level;
    // Steps of warm-up; 0 means 200.
    uint32_t warm_up;
    // Threads; 0 means all that the machine has. The result doesn't depend on it.
    uint32_t threads;
    // Chooses the start, the order of the rows and what drops out.
    uint64_t seed;
    // Steps between two checkpoints; 0 means 500.
    uint32_t checkpoint_every;
    // Always 0.
    uint32_t reserved;
} tiller_coder_options;

// Trains a coder on the rows of `n_rows` directories, all of one model and layer. `checkpoint` is a file from which a run
// that was cancelled goes on, or NULL. Progress counts rows.
//
// On success `*out` owns a new object; free it with tiller_coder_free().
TILLER_API
tiller_status tiller_coder_train(const tiller_activations *const *rows,
                                 size_t n_rows,
                                 const tiller_coder_options *given,
                                 const char *checkpoint,
                                 const tiller_progress *progress,
                                 tiller_coder **out,
                                 tiller_error **err);

// The same on rows in memory: `n` floats, rows of width `d_model` one after another. Differences of rows for SSAE.
//
// On success `*out` owns a new object; free it with tiller_coder_free().
TILLER_API
tiller_status tiller_coder_train_rows(const float *rows,
                                      size_t n,
                                      size_t d_model,
                                      const tiller_coder_options *given,
                                      const char *checkpoint,
                                      const tiller_progress *progress,
                                      tiller_coder **out,
                                      tiller_error **err);

// Reads a coder that tiller_coder_save() wrote.
//
// On success `*out` owns a new object; free it with tiller_coder_free().
TILLER_API tiller_status tiller_coder_open(const char *file, tiller_coder **out, tiller_error **err);

// Writes a coder as safetensors.
TILLER_API tiller_status tiller_coder_save(const tiller_coder *coder, const char *file, tiller_error **err);

// Width of the rows. 0 if `coder` is NULL.
TILLER_API size_t tiller_coder_d_model(const tiller_coder *coder);

// Number of codes. 0 if `coder` is NULL.
TILLER_API size_t tiller_coder_n_latents(const tiller_coder *coder);

// Codes rows: `n_rows` floats, whole rows of d_model, become `n_codes` floats, as many rows of n_latents. `threads` 0 means
// all that the machine has.
TILLER_API
tiller_status tiller_coder_encode(const tiller_coder *coder,
                                  const float *rows,
                                  size_t n_rows,
                                  uint32_t threads,
                                  float *codes,
                                  size_t n_codes,
                                  tiller_error **err);

// The rows that codes stand for: the other way.
TILLER_API
tiller_status tiller_coder_decode(const tiller_coder *coder,
                                  const float *codes,
                                  size_t n_codes,
                                  uint32_t threads,
                                  float *rows,
                                  size_t n_rows,
                                  tiller_error **err);

// The direction of code `latent`: `n` = d_model floats, for tiller_control_vector_add().
TILLER_API
tiller_status tiller_coder_decoder_row(const tiller_coder *coder,
                                       size_t latent,
                                       float *row,
                                       size_t n,
                                       tiller_error **err);

// A dictionary with the same decoder, whose features are the codes cut off below zero: plans may add its features. A
// coder of differences has none.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
TILLER_API
tiller_status tiller_coder_dictionary(const tiller_coder *coder,
                                      tiller_dictionary **out,
                                      tiller_error **err);

// Frees `coder`. NULL is a no-op.
TILLER_API void tiller_coder_free(tiller_coder *coder);

/* ---- Directions ------------------------------------------------------------------------------------------ */

// How well a direction tells the rows apart that it was made from.
typedef struct {
    // Set it to sizeof(tiller_direction_report) before the call.
    uint32_t size;
    // Always 0.
    uint32_t reserved;
    // Share of pairs whose positive row lies further along the direction; NaN if the rows are no pairs.
    double agreement;
    // Distance of the two means along the direction, in standard deviations.
    double separation;
    // Of a principal axis: its share of the sum of squares; else NaN.
    double explained;
} tiller_direction_report;

// The direction from negative to positive rows, for tiller_control_vector_add(): `n` = d_model floats. Both kinds of rows
// are given one after another. `method`: 0 difference of the means; 1 mean of the differences of pairs (CAA); 2 first
// principal axis of these differences as they are (llama.cpp's generator); 3 around their mean (repeng's pca_diff). For 1
// to 3, row i of both is a pair. Means keep their length; axes have norm 1 and point to the positive rows. `given` may be
// NULL.
TILLER_API
tiller_status tiller_direction(const float *positive,
                               size_t n_positive,
                               const float *negative,
                               size_t n_negative,
                               size_t d_model,
                               uint32_t method,
                               uint32_t threads,
                               float *values,
                               size_t n,
                               tiller_direction_report *given,
                               tiller_error **err);

/* ---- Probes ---------------------------------------------------------------------------------------------- */

// A logistic regression that reads a yes or no off a row: p(yes) = 1 / (1 + exp(-(weights . row + bias))).
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_probe tiller_probe;

// How a probe is fitted. Zero means the default.
typedef struct {
    // sizeof(tiller_probe_options).
    uint32_t size;
    // What keeps weights small: 0 L2, 1 L1 (most weights are exactly zero).
    uint32_t penalty;
    // The weight of the data against the penalty, as in scikit-learn; 0 means 1.
    double c;
    // Use the best so many columns alone, ranked by an L1 regression at C = 0.1; 0 means all.
    uint32_t k;
    // 1 leaves columns as they are; else they are brought to mean 0 and variance 1 first.
    uint32_t raw;
    // Threads; 0 means all that the machine has. The result doesn't depend on it.
    uint32_t threads;
    // Always 0.
    uint32_t reserved;
} tiller_probe_options;

// Fits a probe to `n` floats, rows of width `d_model` one after another, and `n_labels` labels, 0 or 1, one for each row.
//
// On success `*out` owns a new object; free it with tiller_probe_free().
TILLER_API
tiller_status tiller_probe_fit(const float *rows,
                               size_t n,
                               size_t d_model,
                               const uint8_t *labels,
                               size_t n_labels,
                               const tiller_probe_options *given,
                               const tiller_progress *progress,
                               tiller_probe **out,
                               tiller_error **err);

// Reads a probe that tiller_probe_save() wrote.
//
// On success `*out` owns a new object; free it with tiller_probe_free().
TILLER_API tiller_status tiller_probe_open(const char *file, tiller_probe **out, tiller_error **err);

// Writes weights and bias as safetensors.
TILLER_API tiller_status tiller_probe_save(const tiller_probe *probe, const char *file, tiller_error **err);

// Width of the rows. 0 if `probe` is NULL.
TILLER_API size_t tiller_probe_d_model(const tiller_probe *probe);

// The bias. 0 if `probe` is NULL.
TILLER_API float tiller_probe_bias(const tiller_probe *probe);

// The weights: `n` = d_model floats. The logit rises fastest along them, so they are a direction to steer by.
TILLER_API
tiller_status tiller_probe_weights(const tiller_probe *probe,
                                   float *weights,
                                   size_t n,
                                   tiller_error **err);

// Frees `probe`. NULL is a no-op.
TILLER_API void tiller_probe_free(tiller_probe *probe);

/* ---- Rows and codes in files ----------------------------------------------------------------------------- */

// What was encoded.
typedef struct {
    // Set it to sizeof(tiller_encoded) before the call.
    uint32_t size;
    // Always 0.
    uint32_t reserved;
    // Rows.
    uint64_t n_rows;
    // Active features of all rows: rows times L0.
    uint64_t n_active;
} tiller_encoded;

// Encodes the rows in a file (.npy, .npz, .safetensors, torch; one array [n, d_model]) or a directory of harvested rows,
// on `threads` threads (0 means 1). `name` says which array, if the file holds several, or is NULL. Codes go to `file`:
// dense [n, n_features] if it ends in .npy; if in .safetensors, sparse as `row`, `feature` (u32) and `value` (f32), and
// `shape` (i64). Progress counts rows.
TILLER_API
tiller_status tiller_dictionary_encode_file(const tiller_dictionary *dictionary,
                                            const char *rows,
                                            const char *name,
                                            const char *file,
                                            uint32_t threads,
                                            const tiller_progress *progress,
                                            tiller_encoded *out,
                                            tiller_error **err);

// Decodes the codes in a file, dense or sparse as tiller_dictionary_encode_file() writes them, to rows [n, d_out] in the
// .npy file `file`; their number goes to `*n_rows`, which may be NULL. `rows` are the rows that were encoded, for
// dictionaries that normalise each row by itself or have a skip connection, or NULL.
TILLER_API
tiller_status tiller_dictionary_decode_file(const tiller_dictionary *dictionary,
                                            const char *codes,
                                            const char *rows,
                                            const char *file,
                                            uint64_t *n_rows,
                                            tiller_error **err);

/* ---- Relations in time ----------------------------------------------------------------------------------- */

// Which latent drives which, in the same row and in later ones: z_t = sum B_k z_(t-k) + M z_t + noise. The latents are
// features of a dictionary, or of the rows themselves. The file is safetensors: A, B, M, order.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_temporal tiller_temporal;

// How a temporal model is estimated. Zero means the default.
typedef struct {
    // sizeof(tiller_temporal_options).
    uint32_t size;
    // Rows that the present may depend on; 0 means 2.
    uint32_t lags;
    // Latents; of a dictionary, the features that say most about the text. 0 means 512.
    uint32_t n_latents;
    // 1: go on from the two-stage estimate by gradient descent on the whole objective.
    uint32_t joint;
    // Weight of the noise in the joint objective; 0 means 0.1.
    float alpha;
    // Weight of sparsity in the joint objective; 0 means 0.003.
    float beta;
    // Times that the joint estimate sees every row; 0 means 4.
    uint32_t epochs;
    // Threads; 0 means all that the machine has. The result doesn't depend on it.
    uint32_t threads;
    // Least effect that counts, in standard deviations; 0 means 0.05.
    float smallest;
    // Ridge of the regression on the past, for columns of variance 1; 0 means 0.001.
    float ridge;
    // Residuals that are unmixed, at most; 0 means 100,000.
    uint32_t ica_rows;
    // Every so-many-th document is left out; 0 leaves out none.
    uint32_t hold_out;
    // Chooses the order of pieces of the joint estimate.
    uint64_t seed;
} tiller_temporal_options;

// How well a temporal model predicts rows: variance explained, mean over latents.
typedef struct {
    // Set it to sizeof(tiller_forecast) before the call.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // Rows that were predicted.
    uint64_t n_rows;
    // From the rows before.
    double from_past;
    // The same with the rows before taken from other places of the text.
    double from_shuffled_past;
    // From the rows before and the latents that drive each latent in its own row.
    double from_past_and_present;
    // The same with the rows before taken from other places of the text.
    double from_shuffled_past_and_present;
} tiller_forecast;

// Estimates a temporal model from harvested rows, in the order of their text: of the features of `dictionary`, or, if that
// is NULL, of latents of the rows. `checkpoint` is a file from which a joint estimate that was cancelled goes on, or NULL.
//
// On success `*out` owns a new model; free it with tiller_temporal_free(), after tiller_temporal_save().
TILLER_API
tiller_status tiller_temporal_train(const tiller_activations *rows,
                                    const tiller_dictionary *dictionary,
                                    const tiller_temporal_options *given,
                                    const char *checkpoint,
                                    const tiller_progress *progress,
                                    tiller_temporal **out,
                                    tiller_error **err);

// Opens a file that tiller_temporal_save() wrote.
//
// On success `*out` owns a new model; free it with tiller_temporal_free().
TILLER_API tiller_status tiller_temporal_open(const char *file, tiller_temporal **out, tiller_error **err);

// Writes the model as safetensors.
TILLER_API
tiller_status tiller_temporal_save(const tiller_temporal *temporal,
                                   const char *file,
                                   tiller_error **err);

// Number of latents. 0 if `temporal` is NULL.
TILLER_API size_t tiller_temporal_n_latents(const tiller_temporal *temporal);

// Number of lags. 0 if `temporal` is NULL.
TILLER_API size_t tiller_temporal_lags(const tiller_temporal *temporal);

// Width of the residual stream that the latents lie in; 0 if that is unknown or `temporal` is NULL.
TILLER_API size_t tiller_temporal_d_model(const tiller_temporal *temporal);

// The feature of the dictionary that each latent is, in `n` = n_latents numbers; of a model of rows, 0, 1, 2, ...
TILLER_API
tiller_status tiller_temporal_features(const tiller_temporal *temporal,
                                       uint32_t *features,
                                       size_t n,
                                       tiller_error **err);

// The latents in causal order, causes first, in `n` = n_latents numbers.
TILLER_API
tiller_status tiller_temporal_order(const tiller_temporal *temporal,
                                    uint32_t *order,
                                    size_t n,
                                    tiller_error **err);

// The weights of a lag, `n` = n_latents * n_latents floats, row by row: entry [i][j] is how much of latent j, `lag` rows
// before, is in latent i. Lag 0 is M, lag k is B_k.
TILLER_API
tiller_status tiller_temporal_weights(const tiller_temporal *temporal,
                                      uint32_t lag,
                                      float *weights,
                                      size_t n,
                                      tiller_error **err);

// Standard deviation of each latent, `n` = n_latents floats.
TILLER_API
tiller_status tiller_temporal_deviation(const tiller_temporal *temporal,
                                        float *deviation,
                                        size_t n,
                                        tiller_error **err);

// What follows an edit of `latent` by 1: `n` = (steps + 1) * n_latents floats, the row itself first, then the rows after.
TILLER_API
tiller_status tiller_temporal_response(const tiller_temporal *temporal,
                                       uint32_t latent,
                                       uint32_t steps,
                                       float *response,
                                       size_t n,
                                       tiller_error **err);

// The direction in the residual stream of `latent`, `n` = d_model floats: alone, or with what it drives in the same row if
// `propagate`. A plan does the same by the key "propagate".
TILLER_API
tiller_status tiller_temporal_direction(const tiller_temporal *temporal,
                                        uint32_t latent,
                                        bool propagate,
                                        float *direction,
                                        size_t n,
                                        tiller_error **err);

// How well the model predicts harvested rows: with `hold_out`, only the documents that the same number left out when it was
// estimated. `dictionary` is the one that it is on, or NULL for a model of rows.
TILLER_API
tiller_status tiller_temporal_forecast(const tiller_temporal *temporal,
                                       const tiller_activations *rows,
                                       const tiller_dictionary *dictionary,
                                       uint32_t hold_out,
                                       const tiller_progress *progress,
                                       tiller_forecast *out,
                                       tiller_error **err);

// Frees `temporal`. NULL is a no-op.
TILLER_API void tiller_temporal_free(tiller_temporal *temporal);

/* ---- Quality of a dictionary ----------------------------------------------------------------------------- */

// Which rows a dictionary is measured on. Zero means the default.
typedef struct {
    // sizeof(tiller_measure).
    uint32_t size;
    // Threads; 0 means 1.
    uint32_t threads;
    // At most about so many rows, taken evenly from all of them; 0 means every row.
    uint64_t max_rows;
    // 1 counts attention sinks too: rows at position 0, and rows farther from the middle than ten
    // medians of that distance. They are few, but they rule every sum.
    uint32_t include_sinks;
    // Always 0.
    uint32_t reserved;
} tiller_measure;

// How well a dictionary explains rows.
typedef struct {
    // Set it to sizeof(tiller_quality) before the call.
    uint32_t size;
    // Always 0.
    uint32_t reserved;
    // Rows shown.
    uint64_t n_rows;
    // Rows set apart for their length, the ones at position 0 not among them.
    uint64_t n_sinks;
    // Mean number of active features in a row.
    double l0;
    // Fraction of variance unexplained.
    double fvu;
    // Share of features that no row activated.
    double dead_share;
    // Mean norm of the rows shown.
    double mean_norm;
} tiller_quality;

// Measures a dictionary on harvested rows. Progress counts rows.
TILLER_API
tiller_status tiller_dictionary_measure(const tiller_dictionary *dictionary,
                                        const tiller_activations *rows,
                                        const tiller_measure *given,
                                        const tiller_progress *progress,
                                        tiller_quality *out,
                                        tiller_error **err);

/* ---- Why a dictionary does not fit ----------------------------------------------------------------------- */

// Whether a dictionary fits rows of a model, and if not, what is most likely wrong: found by trying what could be.
//
// Its life: tiller_dictionary_diagnose() or tiller_engine_diagnose(); tiller_diagnosis_get() for figures,
// tiller_diagnosis_verdict() for a sentence, tiller_diagnosis_tried() for every alternative; tiller_diagnosis_free().
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_diagnosis tiller_diagnosis;

// Rows of one hook point of a model.
typedef struct {
    // Its name, such as "blocks.19.hook_resid_post".
    const char *hook;
    // Rows of d_model floats, one after the other, none of them of position 0.
    const float *data;
    // Number of floats.
    size_t n_data;
} tiller_hook_rows;

// What was found, in figures.
typedef struct {
    // Set it to sizeof(tiller_diagnosed) before the call.
    uint32_t size;
    // 1 if the dictionary fits as it is.
    uint32_t fits;
    // 1 if a cause was found: it is the first alternative of tiller_diagnosis_tried().
    uint32_t has_cause;
    // Alternatives that were tried.
    uint32_t n_tried;
    // Mean number of active features in a row.
    double l0;
    // The one that the dictionary's file promises; 0 if it promises none.
    double promised_l0;
    // Fraction of variance unexplained; infinite where it cannot be told.
    double fvu;
} tiller_diagnosed;

// Tries `dictionary`, and what may be wrong with it, on rows of some hook points: its own, and others that it may belong
// to. Some hundred rows of each do. Progress counts alternatives.
//
// On success `*out` owns a new object; free it with tiller_diagnosis_free().
TILLER_API
tiller_status tiller_dictionary_diagnose(const tiller_dictionary *dictionary,
                                         const tiller_hook_rows *rows,
                                         size_t n_rows,
                                         uint32_t threads,
                                         const tiller_progress *progress,
                                         tiller_diagnosis **out,
                                         tiller_error **err);

// The figures of the dictionary as it was given.
TILLER_API
tiller_status tiller_diagnosis_get(const tiller_diagnosis *diagnosis,
                                   tiller_diagnosed *out,
                                   tiller_error **err);

// The verdict, in a sentence with figures: that it fits, or what is most likely wrong.
TILLER_API
tiller_status tiller_diagnosis_verdict(const tiller_diagnosis *diagnosis,
                                       tiller_text **out,
                                       tiller_error **err);

// Alternative `i`, the best one first: what would be right, in words, and the L0 and FVU that it gives.
TILLER_API
tiller_status tiller_diagnosis_tried(const tiller_diagnosis *diagnosis,
                                     size_t i,
                                     double *l0,
                                     double *fvu,
                                     tiller_text **out,
                                     tiller_error **err);

// Frees `diagnosis`. NULL is a no-op.
TILLER_API void tiller_diagnosis_free(tiller_diagnosis *diagnosis);

/* ---- Concepts that features stand for -------------------------------------------------------------------- */

// Concepts, as relations between words: the rows of words without and with each concept, and the log-odds that a logistic
// regression gives them. What the MPC of a dictionary or coder is measured with (arXiv 2601.20420).
//
// Its life: tiller_concepts_new() and tiller_concepts_add() for rows of any origin, or tiller_engine_concepts();
// tiller_concepts_free().
//
// Thread safety: immutable but for tiller_concepts_add(); may be read from several threads at once.
typedef struct tiller_concepts tiller_concepts;

// How well single features say what concepts are: every concept matched with a feature of its own, so that the mean
// correlation is largest.
//
// Its life: tiller_dictionary_mpc() or tiller_coder_mpc(); tiller_mpc_get() for figures, tiller_mpc_match() for every
// concept's feature; tiller_mpc_free().
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_mpc tiller_mpc;

// Mean correlations with the concepts' log-odds, 0 to 1. Compare only featurizers of about the same number of features.
typedef struct {
    // Set it to sizeof(tiller_mpc_figures) before the call.
    uint32_t size;
    // Always 0.
    uint32_t reserved;
    // That of exp(code - max): the paper's.
    double mpc;
    // That of the codes as they are, matched anew.
    double raw;
    // `mpc` for labels dealt anew: what chance gives.
    double shuffled;
    // `raw` for labels dealt anew.
    double shuffled_raw;
} tiller_mpc_figures;

// No concepts yet, of rows of width `d_model`.
//
// On success `*out` owns a new object; free it with tiller_concepts_free().
TILLER_API tiller_status tiller_concepts_new(size_t d_model, tiller_concepts **out, tiller_error **err);

// Adds a concept: `n_rows` floats, rows of d_model one after another, one a word (that of its last token, say), and for
// each word whether it has the concept, 1 or 0. Fits the regression.
TILLER_API
tiller_status tiller_concepts_add(tiller_concepts *concepts,
                                  const char *name,
                                  const float *rows,
                                  size_t n_rows,
                                  const uint8_t *labels,
                                  size_t n_labels,
                                  tiller_error **err);

// Number of concepts. 0 if `concepts` is NULL.
TILLER_API size_t tiller_concepts_length(const tiller_concepts *concepts);

// Frees `concepts`. NULL is a no-op.
TILLER_API void tiller_concepts_free(tiller_concepts *concepts);

// Matches concepts with the features of `dictionary`. `threads` 0 means 1. Progress counts concepts.
//
// On success `*out` owns a new object; free it with tiller_mpc_free().
TILLER_API
tiller_status tiller_dictionary_mpc(const tiller_dictionary *dictionary,
                                    const tiller_concepts *concepts,
                                    uint32_t threads,
                                    const tiller_progress *progress,
                                    tiller_mpc **out,
                                    tiller_error **err);

// Matches concepts with the codes of `coder`. `threads` 0 means all that the machine has. Progress counts concepts.
//
// On success `*out` owns a new object; free it with tiller_mpc_free().
TILLER_API
tiller_status tiller_coder_mpc(const tiller_coder *coder,
                               const tiller_concepts *concepts,
                               uint32_t threads,
                               const tiller_progress *progress,
                               tiller_mpc **out,
                               tiller_error **err);

// The figures.
TILLER_API tiller_status tiller_mpc_get(const tiller_mpc *mpc, tiller_mpc_figures *out, tiller_error **err);

// What concept `i` was matched with: its name, the feature, and their correlation.
TILLER_API
tiller_status tiller_mpc_match(const tiller_mpc *mpc,
                               size_t i,
                               uint32_t *feature,
                               double *correlation,
                               tiller_text **out,
                               tiller_error **err);

// Frees `mpc`. NULL is a no-op.
TILLER_API void tiller_mpc_free(tiller_mpc *mpc);

/* ---- Explaining by counting ------------------------------------------------------------------------------ */

// How features are explained by counting. Zero means the default.
typedef struct {
    // sizeof(tiller_explain).
    uint32_t size;
    // Tokens of a window; 0 means 32.
    uint32_t window;
    // Of more rows than this, windows spread evenly over the text are taken; 0 takes all.
    uint64_t max_rows;
    // Words kept per feature; 0 means 50.
    uint32_t top;
    // Windows in which a feature and a word must come together to count at all; 0 means 3.
    uint32_t min_together;
    // Threads; 0 means 1. The answer does not depend on it.
    uint32_t threads;
    // Always 0.
    uint32_t reserved;
} tiller_explain;

// The `n_words` most frequent words of harvested text (`n_rows` directories).
//
// On success `*out` owns a new object; free it with tiller_vocabulary_free().
TILLER_API
tiller_status tiller_vocabulary_harvested(const tiller_activations *const *rows,
                                          size_t n_rows,
                                          const tiller_model *model,
                                          size_t n_words,
                                          tiller_vocabulary **out,
                                          tiller_error **err);

// Explains the features of `dictionary` by the words of `vocabulary` that go together with them in harvested text
// (`n_rows` directories): by mutual information, counted over windows. The default estimator; see tiller_engine_explain() for the others.
// Progress counts rows.
//
// On success `*out` owns a new object; free it with tiller_explanations_free().
TILLER_API
tiller_status tiller_explain_data(const tiller_activations *const *rows,
                                  size_t n_rows,
                                  const tiller_model *model,
                                  const tiller_dictionary *dictionary,
                                  const tiller_vocabulary *vocabulary,
                                  const tiller_explain *given,
                                  const tiller_progress *progress,
                                  tiller_explanations **out,
                                  tiller_error **err);

// The baseline TopAct: explains the features of `dictionary` by the words of the `n_spans` (0 means 20) pieces of harvested
// text (`n_rows` directories) on which each fires most. `spans`, unless NULL, receives the pieces themselves, a line of
// JSON each: "feature", "row", "activation", "text". Progress counts rows.
//
// On success `*out` owns a new object; free it with tiller_explanations_free(), and `*spans` with tiller_text_free().
TILLER_API
tiller_status tiller_explain_spans(const tiller_activations *const *rows,
                                   size_t n_rows,
                                   const tiller_model *model,
                                   const tiller_dictionary *dictionary,
                                   const tiller_vocabulary *vocabulary,
                                   uint32_t n_spans,
                                   uint32_t threads,
                                   const tiller_progress *progress,
                                   tiller_text **spans,
                                   tiller_explanations **out,
                                   tiller_error **err);

/* ---- Plans ----------------------------------------------------------------------------------------------- */

// A plan resolved against its dictionaries and a model, ready for the hot path. Needs neither any more.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_compiled tiller_compiled;

// What to do to the residual stream: a list of rules, as data. A plan is a short JSON file that people read, diff and
// edit by hand; examples/files.md has its schema.
//
// Its life: tiller_plan_open() or tiller_plan_parse() or tiller_plan_for(); tiller_plan_compile() with the
// dictionaries that it speaks of; hand the compiled plan to tiller_hook_set_plan() or tiller_engine_set_plan().
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_plan tiller_plan;

// A dictionary under the name by which a plan's rules call it.
typedef struct {
    // The name; "" if the plan names none.
    const char *name;
    // The dictionary.
    const tiller_dictionary *dictionary;
} tiller_named;

// A hook point: a site of a block.
typedef struct {
    // The block, from 0.
    uint32_t layer;
    // 0 the residual stream after the block, 1 before it, 2 what attention adds, 3 the residual stream between attention
    // and MLP, 4 what the MLP adds. Other sites than 0 need tiller_hook_set_architecture().
    uint32_t site;
} tiller_point;

// Which token a row of the residual stream belongs to.
typedef struct {
    // Its position in its sequences, from 0; -1 where that is not known.
    int32_t position;
    // Which sequence, from 0 to 255; of several, the lowest; -1 where that is not known.
    int32_t sequence;
    // 1 if the model wrote the token, 0 if it was given, 2 where that is not known.
    uint32_t generated;
    // 1 if `token` is known.
    uint32_t has_token;
    // The token.
    int32_t token;
    // Always 0.
    uint32_t reserved;
    // The sequences that share the token with `sequence`, a bit for each: id i is bit i % 64 of word i / 64. All 0 if none.
    uint64_t shared[4];
} tiller_row;

// Reads and checks a plan file. Paths in it are relative to the file's directory.
//
// On success `*out` owns a new plan; free it with tiller_plan_free().
TILLER_API tiller_status tiller_plan_open(const char *file, tiller_plan **out, tiller_error **err);

// Reads and checks a plan from JSON text. Paths in it are relative to the working directory.
TILLER_API tiller_status tiller_plan_parse(const char *json, tiller_plan **out, tiller_error **err);

// The plan of one rule on the features that a search found, each with its weight.
//
// `op` is an operator of the schema, such as "min_clamp". `unit` counts `strength`: 0 raw, 1 multiples of each feature's
// mean positive activation, 2 the norm of the row. `dictionary` is the name for tiller_plan_compile(), or NULL.
TILLER_API
tiller_status tiller_plan_for(const tiller_matches *matches,
                              const char *op,
                              float strength,
                              uint32_t unit,
                              const char *dictionary,
                              tiller_plan **out,
                              tiller_error **err);

// A copy of the plan with every strength multiplied by `factor`; rules without one stay as they are.
//
// On success `*out` owns a new plan; free it with tiller_plan_free().
TILLER_API
tiller_status tiller_plan_scaled(const tiller_plan *plan,
                                 float factor,
                                 tiller_plan **out,
                                 tiller_error **err);

// Number of rules. 0 if `plan` is NULL.
TILLER_API size_t tiller_plan_n_rules(const tiller_plan *plan);

// The plan as JSON, indented.
TILLER_API tiller_status tiller_plan_json(const tiller_plan *plan, tiller_text **out, tiller_error **err);

// Writes the plan as JSON; `file` is the old one or the new one, never half of it.
TILLER_API tiller_status tiller_plan_save(const tiller_plan *plan, const char *file, tiller_error **err);

// Resolves the plan against `n` dictionaries and a model. A site that its architecture does not have is
// TILLER_E_UNSUPPORTED.
//
// `route`: 0 unconditional adds become a control vector and everything else goes to the callback; 1 everything goes to
// the callback; 2 everything becomes a control vector, and a rule that cannot is an error.
//
// On success `*out` owns a new object; free it with tiller_compiled_free(). It keeps nothing of `plan` or `dictionaries`.
TILLER_API
tiller_status tiller_plan_compile(const tiller_plan *plan,
                                  const tiller_named *dictionaries,
                                  size_t n,
                                  const tiller_target *target,
                                  uint32_t route,
                                  tiller_compiled **out,
                                  tiller_error **err);

// Frees `plan`. NULL is a no-op.
TILLER_API void tiller_plan_free(tiller_plan *plan);

// SHA-256, in hex, of everything that decides what the plan does: plans with equal fingerprints may share KV and
// prefix caches. "" if `compiled` is NULL. Valid until `compiled` is freed.
TILLER_API
const char *tiller_compiled_fingerprint(const tiller_compiled *compiled);

// What a reader of the plan should know, a line each; "" if there is nothing, or `compiled` is NULL. Valid until
// `compiled` is freed.
TILLER_API
const char *tiller_compiled_warnings(const tiller_compiled *compiled);

// Checks that the plan was compiled for a model of `n_layer` blocks and width `d_model`: TILLER_OK or
// TILLER_E_MISMATCH.
TILLER_API
tiller_status tiller_compiled_check(const tiller_compiled *compiled,
                                    size_t n_layer,
                                    size_t d_model,
                                    tiller_error **err);

// Whether the callback has to be installed. A plan that is a control vector alone doesn't need it.
TILLER_API bool tiller_compiled_needs_callback(const tiller_compiled *compiled);

// How many floats tiller_compiled_control_vector() writes: (n_layer - 1) * d_model, or 0 if the plan has no part that
// becomes a control vector.
TILLER_API
size_t tiller_compiled_control_vector_length(const tiller_compiled *compiled);

// The part of the plan that llama.cpp applies by itself: give these `n_data` floats to llama_set_adapter_cvec() with
// n_embd = d_model, il_start = 1, il_end = n_layer. `n_data` must be tiller_compiled_control_vector_length().
TILLER_API
tiller_status tiller_compiled_control_vector(const tiller_compiled *compiled,
                                             float *data,
                                             size_t n_data,
                                             tiller_error **err);

// Does to `n_rows` rows what the callback would do to them at `point`, without any model.
//
// `data` holds `n_rows` * d_model floats, row by row, and is edited in place; `rows` says which token each is.
// `*n_edited` is how many were changed (may be NULL). A gate over a sequence sees these rows alone. Rows on which a rule
// cannot be judged are left as they are by it: TILLER_E_MISMATCH says so when the others are done.
TILLER_API
tiller_status tiller_compiled_apply(const tiller_compiled *compiled,
                                    tiller_point point,
                                    float *data,
                                    size_t n_data,
                                    const tiller_row *rows,
                                    size_t n_rows,
                                    uint64_t *n_edited,
                                    tiller_error **err);

// Frees `compiled`. Hooks and engines that it was given to keep their own reference. NULL is a no-op.
TILLER_API void tiller_compiled_free(tiller_compiled *compiled);

/* ---- Control vectors ------------------------------------------------------------------------------------- */

// One constant direction a layer, for layers 1 and up: llama.cpp's control vectors and their GGUF file.
//
// Thread safety: one thread at a time.
typedef struct tiller_control_vector tiller_control_vector;

// A control vector without directions, of width `d_model`.
//
// On success `*out` owns a new object; free it with tiller_control_vector_free().
TILLER_API
tiller_status tiller_control_vector_new(size_t d_model,
                                        tiller_control_vector **out,
                                        tiller_error **err);

// Reads a control vector file. A file that asks for another operator than "add" is refused.
TILLER_API
tiller_status tiller_control_vector_open(const char *file,
                                         tiller_control_vector **out,
                                         tiller_error **err);

// Width of a direction. 0 if `vector` is NULL.
TILLER_API size_t tiller_control_vector_d_model(const tiller_control_vector *vector);

// Adds `n` = d_model floats to the direction of `layer`, which acts on the node l_out-`layer`; `layer` is at least 1.
TILLER_API
tiller_status tiller_control_vector_add(tiller_control_vector *vector,
                                        uint32_t layer,
                                        const float *direction,
                                        size_t n,
                                        tiller_error **err);

// What llama_set_adapter_cvec() takes: (n_layer - 1) * d_model floats, layer 1 first, zeros where there is no direction.
TILLER_API
tiller_status tiller_control_vector_data(const tiller_control_vector *vector,
                                         size_t n_layer,
                                         float *data,
                                         size_t n_data,
                                         tiller_error **err);

// Writes a file that llama.cpp's programs take with --control-vector; `model_hint` is the model's architecture.
TILLER_API
tiller_status tiller_control_vector_save(const tiller_control_vector *vector,
                                         const char *file,
                                         const char *model_hint,
                                         tiller_error **err);

// Frees `vector`. NULL is a no-op.
TILLER_API void tiller_control_vector_free(tiller_control_vector *vector);

/* ---- Your ggml ------------------------------------------------------------------------------------------- */

// Gives the function of a name, or NULL. dlsym() is one, with the handle of a library as `user`.
typedef void *(*tiller_lookup_fn)(void *user, const char *name);

// Where fields of ggml_tensor lie, in bytes from its start. All zero where functions look there.
typedef struct {
    // sizeof(struct ggml_tensor).
    uint32_t tensor_size;
    // The element type, an int.
    uint32_t dtype;
    // The extents, four int64_t.
    uint32_t shape;
    // The pointers to operands.
    uint32_t src;
    // How many of them there are.
    uint32_t n_src;
    // The pointer to the elements.
    uint32_t data;
    // The pointer to the buffer that holds them.
    uint32_t buffer;
    // The pointer to the tensor that this one is a view of.
    uint32_t view_src;
    // ggml_backend_buffer_is_host().
    bool (*is_host)(void *buffer);
} tiller_ggml_layout;

// How the hook sees your ggml. Fill it with tiller_llama_ggml() of tiller_llama.h, which is compiled against the
// ggml.h of your own llama.cpp; with tiller_ggml_probe(), if you have no headers; or by hand, for another runtime.
//
// Every function must take any tensor of a graph that is being computed, and may be called from the thread that
// computes it. All but `op` are required; without it sites inside a block are not found. With a `layout`, `dtype`, `shape`,
// `data` and `src` are NULL.
typedef struct {
    // sizeof(tiller_ggml).
    uint32_t size;
    // The tensor's name, NUL-terminated.
    const char *(*name)(const struct ggml_tensor *tensor);
    // ggml's number of the element type.
    int (*dtype)(const struct ggml_tensor *tensor);
    // Writes the four extents, the contiguous one first.
    void (*shape)(const struct ggml_tensor *tensor, int64_t *shape);
    // Whether the elements lie without gaps.
    bool (*contiguous)(const struct ggml_tensor *tensor);
    // The elements, if the CPU can read and write them in place; NULL if they lie in a device's memory.
    void *(*data)(const struct ggml_tensor *tensor);
    // Copies `n` bytes out, from `offset` of the tensor.
    void (*get)(const struct ggml_tensor *tensor, void *to, size_t offset, size_t n);
    // Copies `n` bytes in, at `offset` of the tensor.
    void (*set)(struct ggml_tensor *tensor, const void *from, size_t offset, size_t n);
    // The `i`-th operand of the node that computes the tensor, or NULL.
    const struct ggml_tensor *(*src)(const struct ggml_tensor *tensor, int i);
    // The operation that computes the tensor, as ggml_op_desc() calls it.
    const char *(*op)(const struct ggml_tensor *tensor);
    // Where the fields are that no function above reads.
    tiller_ggml_layout layout;
} tiller_ggml;

// Fills `*out` without ggml's headers: `lookup` finds ggml's functions, and the places of the fields of ggml_tensor
// are measured on a few tensors that it makes. What is missing or contradicts another thing is an error that names it:
// TILLER_E_UNSUPPORTED for a function, TILLER_E_MISMATCH for a field or for what a function says.
//
// Set `out->size` to sizeof(tiller_ggml) before the call. The functions must be those of the one ggml that computes
// your graphs; it stays loaded while a hook that was made of `*out` is in use.
//
// Thread safety: as your ggml_init().
TILLER_API
tiller_status tiller_ggml_probe(tiller_lookup_fn lookup,
                                void *user,
                                tiller_ggml *out,
                                tiller_error **err);

/* ---- What a hook did ------------------------------------------------------------------------------------- */

// What a hook saw and did, with what each rule of the plan did and everything that went wrong.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_ledger tiller_ledger;

// What a hook saw and did. Each row counts once for each hook point that it passed.
typedef struct {
    // Set it to sizeof(tiller_report) before the call.
    uint32_t size;
    // Different faults; see tiller_ledger_fault().
    uint32_t n_faults;
    // Graphs of the hook's own context: one for each micro-batch.
    uint64_t graphs;
    // Graphs of other contexts, which passed untouched.
    uint64_t foreign_graphs;
    // Rows of the residual stream at hook points with a plan or a capture.
    uint64_t rows_seen;
    // Rows that a plan changed.
    uint64_t rows_edited;
    // Rows that the plan has nothing to do with, or leaves as they are.
    uint64_t rows_not_needed;
    // Rows that were left alone because it could not be told whether the plan reaches them, or which rows they are.
    uint64_t rows_refused;
    // Rows put back as the model wrote them, because their edit was not finite.
    uint64_t rows_restored;
    // Rows copied for you.
    uint64_t rows_captured;
} tiller_report;

// What one rule of the plan in force did.
typedef struct {
    // Set it to sizeof(tiller_rule_report) before the call.
    uint32_t size;
    // Always 0.
    uint32_t reserved;
    // Rows that it changed.
    uint64_t rows;
    // Rows on which it could not be judged.
    uint64_t rows_unjudged;
    // Mean code of its features before the edit; NaN if it reads none.
    double mean_code;
    // Mean of |x' - x| / |x| over the rows that it changed; NaN if there are none.
    double relative_size;
} tiller_rule_report;

// Something that went wrong.
typedef struct {
    // Set it to sizeof(tiller_fault) before the call.
    uint32_t size;
    // Of which kind, as a call that fails tells it.
    tiller_status status;
    // How often it came: rows where it is about rows, else graphs.
    uint64_t count;
    // What happened, and where. Valid until the ledger is freed.
    const char *what;
} tiller_fault;

// The counts.
TILLER_API
tiller_status tiller_ledger_report(const tiller_ledger *ledger,
                                   tiller_report *out,
                                   tiller_error **err);

// Number of rules that it tells of: those of the plan up to the last that did something. 0 if `ledger` is NULL.
TILLER_API
size_t tiller_ledger_n_rules(const tiller_ledger *ledger);

// What the `rule`-th rule of the plan did, counted from 0.
TILLER_API
tiller_status tiller_ledger_rule(const tiller_ledger *ledger,
                                 size_t rule,
                                 tiller_rule_report *out,
                                 tiller_error **err);

// Number of faults that it tells of; further ones are only counted, in tiller_report. 0 if `ledger` is NULL.
TILLER_API size_t tiller_ledger_n_faults(const tiller_ledger *ledger);

// The `fault`-th fault, counted from 0, in the order in which they came. A fault is no failure of this call.
TILLER_API
tiller_status tiller_ledger_fault(const tiller_ledger *ledger,
                                  size_t fault,
                                  tiller_fault *out,
                                  tiller_error **err);

// Frees `ledger`. NULL is a no-op.
TILLER_API void tiller_ledger_free(tiller_ledger *ledger);

/* ---- The hook in your llama.cpp -------------------------------------------------------------------------- */

// Rows of one hook point, copied out of the graph.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_captured tiller_captured;

// Reads and edits the residual stream while your llama.cpp computes.
//
// Its life: fill a tiller_ggml; tiller_hook_new(); before the llama context is made, set `cb_eval` of its parameters to
// tiller_hook_eval and `cb_eval_user_data` to the hook; set a plan, change it, clear it, as often as you like; call
// tiller_hook_finish() after a decode to learn what was done; free the context, then the hook.
//
// A hook belongs to one context: the first whose graph it sees when it has something to do. Graphs of other contexts that
// call it (a draft model's inherits the callback) pass untouched and are counted. See tiller_hook_rebind().
//
// Thread safety: any thread may call tiller_hook_set_plan() and tiller_hook_check_plan() at any time; the next decode goes by
// the plan, whole. Of the other calls one at a time: what finds the hook in use by another thread fails with
// TILLER_E_ARGUMENT, and a graph that does runs untouched, which tiller_hook_finish() reports.
typedef struct tiller_hook tiller_hook;

// Any edit of the rows at a hook point: `n_rows` rows of `d_model` floats, and the token of each. Return 0, or anything else
// to report a failure.
typedef int (*tiller_patch_fn)(void *user, float *data, size_t d_model, const tiller_row *rows, size_t n_rows);

// Makes a hook with nothing to do. `ggml` is copied.
//
// On success `*out` owns a new hook; free it with tiller_hook_free().
TILLER_API tiller_status tiller_hook_new(const tiller_ggml *ggml, tiller_hook **out, tiller_error **err);

// The callback: exactly the type of ggml_backend_sched_eval_callback. Never fails outward: a failure is kept, the model
// runs on unsteered, and tiller_hook_finish() reports it. Returns false for a computed node only to end the graph after
// the layer of tiller_hook_stop_after().
TILLER_API
bool tiller_hook_eval(struct ggml_tensor *tensor,
                      bool ask,
                      void *hook);

// Says which architecture's graphs the hook will see, as `general.architecture` of the GGUF file spells it: the nodes of
// hook points other than the residual stream after a block are called differently in each.
TILLER_API
tiller_status tiller_hook_set_architecture(const tiller_hook *hook,
                                           const char *architecture,
                                           tiller_error **err);

// Says for how many sequences the context is made (`n_seq_max` of its parameters). With one, every row is of sequence 0,
// also unannounced. tiller_llama_install() says it.
TILLER_API
tiller_status tiller_hook_set_sequences(const tiller_hook *hook,
                                        uint32_t n_sequences,
                                        tiller_error **err);

// Has the hook belong to the next context whose graph it sees: after a context was made anew. tiller_llama_install() does
// it.
TILLER_API
tiller_status tiller_hook_rebind(const tiller_hook *hook,
                                 tiller_error **err);

// Whether tiller_hook_set_plan() would take `compiled`: for callers that have a control vector to set first.
TILLER_API
tiller_status tiller_hook_check_plan(const tiller_hook *hook,
                                     const tiller_compiled *compiled,
                                     tiller_error **err);

// Steers by `compiled` from the next decode on, in place of any plan before; NULL stops steering. Sequence gates of rules
// that stay the same keep their memory. When it fails, nothing has changed. What the plan compiled to a control vector is
// not the hook's to apply: see tiller_compiled_control_vector(). Keeps its own reference.
TILLER_API
tiller_status tiller_hook_set_plan(const tiller_hook *hook,
                                   const tiller_compiled *compiled,
                                   tiller_error **err);

// Whether the plan in force has a part that is a control vector, which llama.cpp has to be told to forget.
TILLER_API bool tiller_hook_has_control_vector(const tiller_hook *hook);

// Says what the next llama_decode() holds: one row for each token, in the order of the batch. It counts for that decode
// only. `n_rows` = 0 takes the last one back: its batch was not decoded.
//
// What a row leaves open, the graph may tell. Without an announcement nobody knows which sequences rows are of, where
// llama.cpp keeps several in one cache, or which the model wrote: rules that depend on it leave rows alone, and
// tiller_hook_finish() says so. Where the graph contradicts the announcement, nothing of it is believed: only rules that take
// every row act.
TILLER_API
tiller_status tiller_hook_announce(const tiller_hook *hook,
                                   const tiller_row *rows,
                                   size_t n_rows,
                                   tiller_error **err);

// Closes the sequence gates of a sequence. Needed only where one starts anew at a later position: a state that was loaded.
TILLER_API
tiller_status tiller_hook_forget_sequence(const tiller_hook *hook,
                                          int32_t sequence,
                                          tiller_error **err);

// Copies the rows at these points, after any edit, until told otherwise; take them with tiller_hook_captured().
// `n_points` = 0 ends it.
TILLER_API
tiller_status tiller_hook_capture(const tiller_hook *hook,
                                  const tiller_point *points,
                                  size_t n_points,
                                  tiller_error **err);

// Runs `patch` over the rows at `point` after the plan, for what no plan can say; NULL takes it away. It must not unwind.
TILLER_API
tiller_status tiller_hook_patch(const tiller_hook *hook,
                                tiller_point point,
                                tiller_patch_fn patch,
                                void *user,
                                tiller_error **err);

// Ends every graph after block `layer`, which saves the work above it; logits are then meaningless. For reading rows.
// -1 lets graphs run to their end again.
TILLER_API
tiller_status tiller_hook_stop_after(const tiller_hook *hook,
                                     int32_t layer,
                                     tiller_error **err);

// The rows copied at `point` since the last call; there may be none.
//
// On success `*out` owns a new object; free it with tiller_captured_free().
TILLER_API
tiller_status tiller_hook_captured(const tiller_hook *hook,
                                   tiller_point point,
                                   tiller_captured **out,
                                   tiller_error **err);

// What was seen and done since the last call: fills `out`, if it is not NULL, whatever went wrong. TILLER_OK if nothing
// did, else the first fault. tiller_hook_ledger() tells all.
TILLER_API
tiller_status tiller_hook_finish(const tiller_hook *hook,
                                 tiller_report *out,
                                 tiller_error **err);

// As tiller_hook_finish(), with what each rule did and every fault.
//
// On success `*out` owns a new ledger; free it with tiller_ledger_free().
TILLER_API tiller_status tiller_hook_ledger(const tiller_hook *hook, tiller_ledger **out, tiller_error **err);

// Frees `hook`. Free the llama context that calls it first. NULL is a no-op.
TILLER_API void tiller_hook_free(tiller_hook *hook);

// Number of rows. 0 if `captured` is NULL.
TILLER_API size_t tiller_captured_n_rows(const tiller_captured *captured);

// The rows: n_rows * d_model floats, row by row. Valid until `captured` is freed.
TILLER_API const float *tiller_captured_data(const tiller_captured *captured);

// Width of a row; 0 if there is none.
TILLER_API size_t tiller_captured_d_model(const tiller_captured *captured);

// The token of each row. Valid until `captured` is freed.
TILLER_API const tiller_row *tiller_captured_tokens(const tiller_captured *captured);

// Frees `captured`. NULL is a no-op.
TILLER_API void tiller_captured_free(tiller_captured *captured);

/* ---- Guards ---------------------------------------------------------------------------------------------- */

// A guard: a plan with monitors, and the features that it uses, in two files.
//
// Its life: tiller_guard_open(); tiller_guard_check_model(); tiller_guard_compile(); hand the compiled plan to
// tiller_hook_set_plan() or tiller_engine_set_plan(); after a decode tiller_hook_watched() has its verdicts.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_guard tiller_guard;

// What a plan's monitors read, and the verdicts that followed.
//
// Thread safety: immutable; may be used from several threads at once.
typedef struct tiller_watched tiller_watched;

// What a monitor read on a row.
typedef struct {
    // Set it to sizeof(tiller_reading) before the call.
    uint32_t size;
    // The monitor's place in the plan.
    uint32_t monitor;
    // The sequence.
    int32_t sequence;
    // The position.
    int32_t position;
    // 1 the model wrote the row's token, 0 it was given, -1 nobody said.
    int32_t generated;
    // 1 if the value reaches the monitor's threshold.
    uint32_t fired;
    // The mean over the monitor's features.
    float value;
    // Always 0.
    uint32_t reserved;
    // The monitor's name. Valid until the tiller_watched is freed.
    const char *name;
} tiller_reading;

// A verdict at a row.
typedef struct {
    // Set it to sizeof(tiller_verdict) before the call.
    uint32_t size;
    // What you should do: 0 nothing, 1 end the answer, 2 end it and put `text` in its place.
    uint32_t action;
    // The sequence.
    int32_t sequence;
    // The position.
    int32_t position;
    // The verdict's name. Valid until the tiller_watched is freed.
    const char *name;
    // What stands in place of the answer, or NULL. Valid until the tiller_watched is freed.
    const char *text;
} tiller_verdict;

// Opens a guard's plan and the features beside it: the file of the same name that ends in .gguf.
//
// On success `*out` owns a new object; free it with tiller_guard_free().
TILLER_API tiller_status tiller_guard_open(const char *file, tiller_guard **out, tiller_error **err);

// Writes the guard's plan to `file` and its features beside it.
TILLER_API
tiller_status tiller_guard_save(const tiller_guard *guarding,
                                const char *file,
                                tiller_error **err);

// Checks that the guard was learned from this model, or another quantization of it: TILLER_OK or TILLER_E_MISMATCH.
TILLER_API
tiller_status tiller_guard_check_model(const tiller_guard *guarding,
                                       const tiller_model *model,
                                       tiller_error **err);

// Resolves the guard's plan for a model. All of it goes to the callback.
//
// On success `*out` owns a new object; free it with tiller_compiled_free(). It keeps nothing of the guard.
TILLER_API
tiller_status tiller_guard_compile(const tiller_guard *guarding,
                                   const tiller_target *target,
                                   tiller_compiled **out,
                                   tiller_error **err);

// Frees a guard. NULL is a no-op.
TILLER_API void tiller_guard_free(tiller_guard *guarding);

// What the monitors of the hook's plan read since the last call, and the verdicts that followed: call it after a decode, and
// you learn of every token. At most 65,536 readings are kept for you.
//
// On success `*out` owns a new object; free it with tiller_watched_free().
TILLER_API
tiller_status tiller_hook_watched(const tiller_hook *hook,
                                  tiller_watched **out,
                                  tiller_error **err);

// Number of readings. 0 if `watched` is NULL.
TILLER_API size_t tiller_watched_n_readings(const tiller_watched *watched);

// The `reading`-th reading, counted from 0, in the order in which they were made.
TILLER_API
tiller_status tiller_watched_reading(const tiller_watched *watched,
                                     size_t reading,
                                     tiller_reading *out,
                                     tiller_error **err);

// Number of verdicts. 0 if `watched` is NULL.
TILLER_API size_t tiller_watched_n_verdicts(const tiller_watched *watched);

// The `verdict`-th verdict, counted from 0, in the order of rows.
TILLER_API
tiller_status tiller_watched_verdict(const tiller_watched *watched,
                                     size_t verdict,
                                     tiller_verdict *out,
                                     tiller_error **err);

// Readings and verdicts that were not kept, because nobody asked in time. 0 if `watched` is NULL.
TILLER_API uint64_t tiller_watched_lost(const tiller_watched *watched);

// Frees `watched`. NULL is a no-op.
TILLER_API void tiller_watched_free(tiller_watched *watched);

/* ---- The engine ------------------------------------------------------------------------------------------ */

#ifdef TILLER_ENGINE

// A model that this library runs by its own llama.cpp, with the lever attached.
//
// Its life: tiller_engine_open(); tiller_engine_set_plan() as often as you like, also during a generation;
// tiller_engine_generate(); tiller_engine_free().
//
// Thread safety: one thread at a time; it may move between threads.
typedef struct tiller_engine tiller_engine;

// How a model is opened and run. Zero means the default.
typedef struct {
    // sizeof(tiller_engine_options).
    uint32_t size;
    // Threads for computing; 0 takes as many as there are processors for this process, and more are not started.
    uint32_t threads;
    // Tokens that the context holds, over all sequences; 0 takes what the model was trained with, at most 4,096.
    uint32_t context;
    // Tokens computed at once when text is read; 0 means 512. No less than there are sequences.
    uint32_t batch;
    // Sequences that may run side by side; 0 means 1. No more than the context has tokens.
    uint32_t sequences;
    // Layers that go to a GPU, if this build has one.
    uint32_t gpu_layers;
    // 1 leaves the hook out: then nothing can be steered through the callback or harvested. To measure its cost.
    uint32_t without_hook;
} tiller_engine_options;

// One turn of a conversation.
typedef struct {
    // "system", "user" or "assistant".
    const char *role;
    // What was said.
    const char *content;
} tiller_message;

// How likely a text was.
typedef struct {
    // Set it to sizeof(tiller_score) before the call.
    uint32_t size;
    // Always 0.
    uint32_t reserved;
    // Tokens scored.
    uint64_t n_tokens;
    // Sum of their negative log-likelihoods, in nats.
    double nll;
    // exp(nll / n_tokens).
    double perplexity;
} tiller_score;

// Opens a GGUF model; of a model in several files, the first.
//
// On success `*out` owns a new engine; free it with tiller_engine_free().
TILLER_API
tiller_status tiller_engine_open(const char *file,
                                 const tiller_engine_options *given,
                                 tiller_engine **out,
                                 tiller_error **err);

// Number of blocks. 0 if `engine` is NULL.
TILLER_API size_t tiller_engine_n_layer(const tiller_engine *engine);

// Width of the residual stream. 0 if `engine` is NULL.
TILLER_API size_t tiller_engine_d_model(const tiller_engine *engine);

// What a plan for it is compiled against, for tiller_plan_compile(). `out->architecture` is valid until `engine` is freed.
TILLER_API
tiller_status tiller_engine_target(const tiller_engine *engine,
                                   tiller_target *out,
                                   tiller_error **err);

// Number of tokens of the vocabulary. 0 if `engine` is NULL.
TILLER_API size_t tiller_engine_n_vocab(const tiller_engine *engine);

// Tokens of `string`. `special` puts the model's BOS in front, if it wants one and `string` does not begin with it, and
// reads the names of control tokens as these: for texts that you wrote or trust.
//
// Writes up to `n_tokens` tokens and how many there are to `*n`. If there are more than fit, the call fails with
// TILLER_E_ARGUMENT, but `*n` is written: call again with room for them.
TILLER_API
tiller_status tiller_engine_tokenize(const tiller_engine *engine,
                                     const char *string,
                                     bool special,
                                     int32_t *tokens,
                                     size_t n_tokens,
                                     size_t *n,
                                     tiller_error **err);

// The text of `n_tokens` tokens; what is no UTF-8 becomes U+FFFD.
TILLER_API
tiller_status tiller_engine_detokenize(const tiller_engine *engine,
                                       const int32_t *tokens,
                                       size_t n_tokens,
                                       tiller_text **out,
                                       tiller_error **err);

// The conversation as the model's own chat template writes it; `answer` adds the opening of the assistant's turn.
//
// For people to read, and for messages that you wrote: as a prompt, the names of control tokens in a message would be read
// as control tokens. To have what others wrote answered, give the messages to tiller_engine_generate() in its options.
TILLER_API
tiller_status tiller_engine_chat(const tiller_engine *engine,
                                 const tiller_message *messages,
                                 size_t n_messages,
                                 bool answer,
                                 tiller_text **out,
                                 tiller_error **err);

// Steers by `compiled` from the next token on, in place of any plan before; NULL stops steering. The model is not
// reloaded. Keeps its own reference.
TILLER_API
tiller_status tiller_engine_set_plan(tiller_engine *engine,
                                     const tiller_compiled *compiled,
                                     tiller_error **err);

// What the hook saw and did since the last call: fills `out`, if it is not NULL, whatever went wrong. TILLER_OK if nothing
// did, else the first fault. tiller_engine_ledger() tells all.
TILLER_API
tiller_status tiller_engine_finish(tiller_engine *engine,
                                   tiller_report *out,
                                   tiller_error **err);

// As tiller_engine_finish(), with what each rule did and every fault.
//
// On success `*out` owns a new ledger; free it with tiller_ledger_free().
TILLER_API tiller_status tiller_engine_ledger(tiller_engine *engine, tiller_ledger **out, tiller_error **err);

// Has the engine's threads sleep at once. They do so by themselves some milliseconds after a decode, and the next one wakes
// them; for programs that compute with something else in between.
TILLER_API
tiller_status tiller_engine_rest(tiller_engine *engine,
                                 tiller_error **err);

// Perplexity of `string`, read in windows of at most `window` tokens (0: the whole context). The plan in force applies.
TILLER_API
tiller_status tiller_engine_perplexity(tiller_engine *engine,
                                       const char *string,
                                       size_t window,
                                       tiller_score *out,
                                       tiller_error **err);

// Scores tokens[from..n_tokens], each given those in front of it; `from` is at least 1. The plan in force applies.
TILLER_API
tiller_status tiller_engine_score(tiller_engine *engine,
                                  const int32_t *tokens,
                                  size_t n_tokens,
                                  size_t from,
                                  tiller_score *out,
                                  tiller_error **err);

// Frees `engine`. NULL is a no-op.
TILLER_API void tiller_engine_free(tiller_engine *engine);

// Writes the model `from` to `to` with other weights; `kind` is llama.cpp's name, such as "Q8_0" or "Q4_K_M".
TILLER_API
tiller_status tiller_requantize(const char *from,
                                const char *to,
                                const char *kind,
                                uint32_t threads,
                                tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Writing text with the engine ------------------------------------------------------------------------ */

#ifdef TILLER_ENGINE

// A generated text.
//
// Thread safety: one thread at a time.
typedef struct tiller_generation tiller_generation;

// How text is generated. Zero means the default.
typedef struct {
    // sizeof(tiller_generate).
    uint32_t size;
    // Tokens to generate at most; 0 means 128.
    uint32_t max_tokens;
    // 0 takes the likeliest token each time.
    float temperature;
    // Keeps the likeliest tokens that hold this much of the probability; 0 means 1, which keeps all.
    float top_p;
    // Seed of the sampler.
    uint32_t seed;
    // 1 goes on when the model wants to end.
    uint32_t ignore_end;
    // A conversation to answer, in place of the prompt, which is then NULL; borrowed for the call. Only the tags of the
    // model's chat template are control tokens: their names in a message stay text.
    const tiller_message *messages;
    // How many messages; 0 for a prompt.
    size_t n_messages;
    // Keeps the tokens that are at least this times as likely as the likeliest; 0 keeps all. Only with a temperature.
    float min_p;
    // Logits of the last 64 generated tokens are divided by it (multiplied, where negative); 0 and 1 leave them. For
    // conversations with small models 0.7, 0.95, 0.05 and 1.1 (temperature, top_p, min_p and this) do well.
    float repeat_penalty;
} tiller_generate;

// Gets each piece of text as it comes; borrowed for this call. Return 0 to go on, anything else to end the generation.
typedef int (*tiller_stream_fn)(void *user, const char *piece);

// Generates a continuation of `prompt`, in which the names of control tokens are read as these; or, where `given` holds
// messages, an answer to them. `stream` may be NULL.
//
// On success `*out` owns a new object; free it with tiller_generation_free().
TILLER_API
tiller_status tiller_engine_generate(tiller_engine *engine,
                                     const char *prompt,
                                     const tiller_generate *given,
                                     tiller_stream_fn stream,
                                     void *user,
                                     tiller_generation **out,
                                     tiller_error **err);

// Generates a continuation of each of `n` prompts, as many side by side as the engine has sequences. Prompt number i
// takes the seed plus i.
//
// On success each of the `n` places of `out` owns a new object; free each with tiller_generation_free().
TILLER_API
tiller_status tiller_engine_generate_many(tiller_engine *engine,
                                          const char *const *prompts,
                                          size_t n,
                                          const tiller_generate *given,
                                          tiller_generation **out,
                                          tiller_error **err);

// Reads `prompt`, or the messages in `given`, and gets ready to generate step by step. Any generation under way ends.
//
// On success `*out` owns a new object; free it with tiller_generation_free().
TILLER_API
tiller_status tiller_engine_begin(tiller_engine *engine,
                                  const char *prompt,
                                  const tiller_generate *given,
                                  tiller_generation **out,
                                  tiller_error **err);

// Generates one token; `*more` becomes false when the generation has ended (tiller_generation_stop() says why). The
// plan may be changed between steps.
TILLER_API
tiller_status tiller_engine_step(tiller_engine *engine,
                                 tiller_generation *generation,
                                 bool *more,
                                 tiller_error **err);

// The text generated so far. Valid until the next step, or until `generation` is freed.
TILLER_API const char *tiller_generation_text(const tiller_generation *generation);

// How many tokens were generated so far, without the end token.
TILLER_API size_t tiller_generation_n_tokens(const tiller_generation *generation);

// The tokens generated so far. Valid until the next step, or until `generation` is freed.
TILLER_API const int32_t *tiller_generation_tokens(const tiller_generation *generation);

// How many tokens the prompt had.
TILLER_API size_t tiller_generation_n_prompt(const tiller_generation *generation);

// Why it ended: 0 it goes on, 1 the model ended its answer, 2 `max_tokens` were generated, 3 you asked to stop, 4 the
// context is full: open the engine with a larger one, 5 a verdict of the plan ended it.
TILLER_API
uint32_t tiller_generation_stop(const tiller_generation *generation);

// Frees `generation`. NULL is a no-op.
TILLER_API void tiller_generation_free(tiller_generation *generation);

#endif /* TILLER_ENGINE */

/* ---- Reading rows with the engine ------------------------------------------------------------------------ */

#ifdef TILLER_ENGINE

// What is harvested. Zero means the default.
typedef struct {
    // sizeof(tiller_harvest).
    uint32_t size;
    // How many layers.
    uint32_t n_layers;
    // Blocks whose rows are read. One layer goes to the directory itself, several to layer-L inside it.
    const uint32_t *layers;
    // Stop after this many tokens; 0 takes all the text.
    uint64_t max_tokens;
    // Longest window, in tokens; 0 means 512.
    uint32_t window;
    // How rows are stored: 0 as 16-bit floats, 1 as 32-bit floats.
    uint32_t dtype;
    // Rows a shard; 0 means 65,536.
    uint32_t shard_rows;
    // 1 runs every graph to its end. To measure what stopping after the last wanted layer saves.
    uint32_t without_early_stop;
    // The site of those blocks, as in tiller_point.
    uint32_t site;
    // Always 0.
    uint32_t reserved;
    // Another quantization of the running model, as whose rows these are marked; NULL marks them as what they are.
    const char *counts_as;
} tiller_harvest;

// Harvests text files into `directory`, for tiller_activations_open(). A .jsonl file holds one document a line, as
// {"text": …} or {"messages": […]}; any other file is one document. What is there already, of the same text, model
// and layers, is kept: a harvest that was cancelled goes on where it was. Progress counts tokens.
TILLER_API
tiller_status tiller_engine_harvest(tiller_engine *engine,
                                    const char *const *files,
                                    size_t n_files,
                                    const char *directory,
                                    const tiller_harvest *given,
                                    const tiller_progress *progress,
                                    uint64_t *n_rows,
                                    tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Training with the engine ---------------------------------------------------------------------------- */

#ifdef TILLER_ENGINE

// Which rows of a text are trained on. Zero means the default.
typedef struct {
    // sizeof(tiller_streamed).
    uint32_t size;
    // The block whose rows are read, from 0.
    uint32_t layer;
    // The site of that block, as in tiller_point.
    uint32_t site;
    // Longest window, in tokens; 0 means 512.
    uint32_t window;
    // Stop after this many tokens; 0 takes all the text.
    uint64_t max_tokens;
    // Rows that are shuffled together; 0 means 131,072. While some are made, a quarter more is held.
    uint64_t buffer;
    // Another quantization of the running model, as whose rows these count; NULL counts them as what they are.
    const char *counts_as;
} tiller_streamed;

// Trains a dictionary on text files, as tiller_engine_harvest() reads them, without storing a row: the rows go through a
// shuffling buffer. `recipe`, `threads`, `checkpoint` and `metrics` are those of tiller_train_recipe(). A run that goes on
// from a checkpoint makes only the rows again that its buffer held. Progress counts rows.
//
// On success `*out` owns a new dictionary; free it with tiller_dictionary_free(), after tiller_dictionary_save().
TILLER_API
tiller_status tiller_engine_train(tiller_engine *engine,
                                  const char *const *files,
                                  size_t n_files,
                                  const tiller_streamed *given,
                                  const char *recipe,
                                  uint32_t threads,
                                  const char *checkpoint,
                                  const char *metrics,
                                  const tiller_progress *progress,
                                  tiller_dictionary **out,
                                  tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Explaining and testing with the engine -------------------------------------------------------------- */

#ifdef TILLER_ENGINE

// How features are explained through the unembedding. Zero means the default.
typedef struct {
    // sizeof(tiller_lens).
    uint32_t size;
    // What ranks words: 0 mutual information, 1 as the paper prints it (a trap), 2 the logit lens.
    uint32_t mode;
    // How p(feature | word) is found: 0 softmax over the features, 1 Bayes' rule.
    uint32_t condition;
    // Words kept per feature; 0 means 50.
    uint32_t top;
    // Threads; 0 means 1.
    uint32_t threads;
    // Always 0.
    uint32_t reserved;
} tiller_lens;

// How much text a self-test uses. Zero means the default.
typedef struct {
    // sizeof(tiller_self_test).
    uint32_t size;
    // Tokens for L0, FVU and dead features; 0 means 60,000.
    uint32_t max_tokens;
    // Tokens for the cross-entropies; 0 means 8,000.
    uint32_t score_tokens;
    // Longest window, in tokens; 0 means 256.
    uint32_t window;
} tiller_self_test;

// What a dictionary does on text.
typedef struct {
    // Set it to sizeof(tiller_self_tested) before the call.
    uint32_t size;
    // How many things there are to know that tiller_model_check() says in words.
    uint32_t n_warnings;
    // Rows shown.
    uint64_t n_rows;
    // Rows set apart for their length, the ones at position 0 not among them.
    uint64_t n_sinks;
    // Mean number of active features in a row.
    double l0;
    // Fraction of variance unexplained.
    double fvu;
    // Share of features that no row activated.
    double dead_share;
    // Mean norm of the rows.
    double mean_norm;
    // Cross-entropy of the model as it is, in nats a token.
    double clean;
    // With the reconstruction in place of the residual stream.
    double reconstructed;
    // With zero in place of the residual stream.
    double zero;
    // (zero - reconstructed) / (zero - clean).
    double recovered;
} tiller_self_tested;

// What one quantization of a model makes of a dictionary.
typedef struct {
    // Set it to sizeof(tiller_drifted) before the call, in each struct of an array.
    uint32_t size;
    // Always 0.
    uint32_t reserved;
    // Mean number of active features in a row.
    double l0;
    // Fraction of variance unexplained.
    double fvu;
    // Cross-entropy of the model as it is, in nats a token.
    double clean;
    // Share of the cross-entropy that the reconstruction recovers, as in tiller_self_tested.
    double recovered;
    // Share of the active features of a token that are others than with the first model, 1 - |A and B| / |A or B|.
    double changed;
} tiller_drifted;

// Explains the features of `dictionary` by reading their directions through the final norm and the unembedding of
// `model`, which `engine` runs. `from` and `to` are NULL, or the rows of the dictionary's layer and of the last one for
// the same text: then a linear map between the two stands in front of the lens. See tiller_explain_data() for the
// default estimator.
//
// On success `*out` owns a new object; free it with tiller_explanations_free().
TILLER_API
tiller_status tiller_engine_explain(const tiller_engine *engine,
                                    const tiller_model *model,
                                    const tiller_dictionary *dictionary,
                                    const tiller_vocabulary *vocabulary,
                                    const tiller_activations *from,
                                    const tiller_activations *to,
                                    const tiller_lens *given,
                                    const tiller_progress *progress,
                                    tiller_explanations **out,
                                    tiller_error **err);

// Tests `dictionary` on the engine's model over text files, as tiller_engine_harvest() reads them. A plan in force is set
// aside meanwhile. Progress counts tokens.
TILLER_API
tiller_status tiller_engine_self_test(tiller_engine *engine,
                                      const tiller_dictionary *dictionary,
                                      const char *const *files,
                                      size_t n_files,
                                      const tiller_self_test *given,
                                      const tiller_progress *progress,
                                      tiller_self_tested *out,
                                      tiller_error **err);

// Whether `dictionary` fits the engine's model, and if not, what is most likely wrong: on the first few hundred tokens of
// text files, as tiller_engine_harvest() reads them. A plan in force is set aside meanwhile. Progress counts alternatives.
//
// On success `*out` owns a new object; free it with tiller_diagnosis_free().
TILLER_API
tiller_status tiller_engine_diagnose(tiller_engine *engine,
                                     const tiller_dictionary *dictionary,
                                     const char *const *files,
                                     size_t n_files,
                                     const tiller_self_test *given,
                                     const tiller_progress *progress,
                                     tiller_diagnosis **out,
                                     tiller_error **err);

// The rows of the last token of `n_texts` texts, at a hook point such as "blocks.19.hook_resid_post": `n` = `n_texts` ×
// d_model floats. A text longer than a batch is refused. For contrastive vectors let every text end with its answer.
// Progress counts texts.
TILLER_API
tiller_status tiller_engine_last_rows(tiller_engine *engine,
                                      const char *const *input,
                                      size_t n_texts,
                                      const char *hook,
                                      const tiller_progress *progress,
                                      float *rows,
                                      size_t n,
                                      tiller_error **err);

// Reads the words of relations with the engine's model, each alone behind a space, and takes the row of its last token at
// a hook point such as "blocks.19.hook_resid_post". `pairs` is a file with a relation, a word and its counterpart to a
// line, between tabs, or NULL for the 27 relations that come along. Progress counts words.
//
// On success `*out` owns a new object; free it with tiller_concepts_free().
TILLER_API
tiller_status tiller_engine_concepts(tiller_engine *engine,
                                     const char *pairs,
                                     const char *hook,
                                     const tiller_progress *progress,
                                     tiller_concepts **out,
                                     tiller_error **err);

// Measures `dictionary` on several quantizations of one model, over text files as tiller_engine_harvest() reads them; the
// first of the `n_models` is what the others are compared with. Each is opened with `engine` (or NULL) and closed again.
// Fills `out`, `n_models` structs. Progress counts tokens and names the model.
TILLER_API
tiller_status tiller_dictionary_drift(const tiller_dictionary *dictionary,
                                      const char *const *models,
                                      size_t n_models,
                                      const char *const *files,
                                      size_t n_files,
                                      const tiller_engine_options *engine,
                                      const tiller_self_test *given,
                                      const tiller_progress *progress,
                                      tiller_drifted *out,
                                      tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Finding features and a strength with the engine ----------------------------------------------------- */

#ifdef TILLER_ENGINE

// How the strength of a plan is searched. Zero means the default.
typedef struct {
    // sizeof(tiller_search).
    uint32_t size;
    // Halvings between the best factor and its next; 0 means 1.
    uint32_t refine;
    // Largest perplexity, relative to the unsteered text, that still counts as fluent; 0 means 1.8.
    double max_perplexity;
    // Smallest share of distinct word pairs, relative to the unsteered text, that still counts as fluent; 0 means 0.8.
    double min_distinct;
} tiller_search;

// What a search found: effects are ratios of steered over unsteered.
typedef struct {
    // Set it to sizeof(tiller_found) before the call.
    uint32_t size;
    // Factors that were tried.
    uint32_t n_trials;
    // What to multiply the plan's strengths by; 0 if every factor broke the text.
    float factor;
    // Always 0.
    uint32_t reserved;
    // Words of the concept per 100 tokens.
    double gain;
    // Perplexity under the unsteered model.
    double perplexity;
    // Share of distinct word pairs.
    double distinct;
} tiller_found;

// How features are ranked by what they make the model say. Zero means the default.
typedef struct {
    // sizeof(tiller_output).
    uint32_t size;
    // Length of the vector that a feature is pushed by, relative to the row's; 0 means 0.3.
    float push;
    // The smallest lift that is kept, relative to the best one's; 0 means 0.25.
    float share;
} tiller_output;

// Searches how strong `plan` should be: the factor, from 0.6 to 4, by which its strengths make the model speak most of a
// concept while the text stays fluent. Give the plan a strength of 1 multiple of each feature's mean activation, then
// apply tiller_plan_scaled(). The concept is `n_words` words, and the first words of `matches` (may be NULL).
//
// Writes and judges some hundred tokens a trial; progress counts trials. No plan is in force afterwards.
TILLER_API
tiller_status tiller_engine_find_strength(tiller_engine *engine,
                                          const tiller_plan *plan,
                                          const tiller_named *dictionaries,
                                          size_t n,
                                          const char *const *words,
                                          size_t n_words,
                                          const tiller_matches *matches,
                                          const tiller_search *given,
                                          const tiller_progress *progress,
                                          tiller_found *out,
                                          tiller_error **err);

// The at most `n_features` of `matches` that make the model speak most of `n_words` words when they are pushed, best
// first, with their lift and their weight. Features that mean a concept need not be those that make the model say it
// (arXiv 2505.20063): search more than you want, some 24, and rank them by this.
//
// Reads some ten tokens a match; open the engine with several sequences, and they are read side by side; progress counts
// readings. No plan is in force afterwards.
//
// On success `*out` owns a new object, which is empty if no match makes the words likelier; free it with
// tiller_matches_free().
TILLER_API
tiller_status tiller_engine_rank(tiller_engine *engine,
                                 const tiller_dictionary *dictionary,
                                 const tiller_matches *matches,
                                 const char *const *words,
                                 size_t n_words,
                                 size_t n_features,
                                 const tiller_output *given,
                                 const tiller_progress *progress,
                                 tiller_matches **out,
                                 tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Learning an instruction with the engine ------------------------------------------------------------- */

#ifdef TILLER_ENGINE

// Learns an instruction from what it does to the model: features of its layers, which make the model do it without being told.
//
// `request` is JSON: {"instruction": "Talk about the sea."}, and if wanted "messages" and "unless" (lists of what users say;
// on the latter the features stay silent), "place" ("auto", "system", "appended", "front"), "avoid", "answers",
// "max_tokens", "seed", "minutes", "threads", "counts_as". `*report` is JSON: the layers, form and strength that were chosen,
// all that was tried, what it does to messages that nothing has seen, answers, and a "plan" for tiller_plan_parse() in which
// `*out` is the only dictionary. Open the engine with several sequences: answers are written side by side. No plan is in
// force afterwards; progress counts answers.
//
// On success `*out` owns a new dictionary, to be freed with tiller_dictionary_free(), after tiller_dictionary_save(), and
// `*report`, which may be NULL, a text, to be freed with tiller_text_free().
TILLER_API
tiller_status tiller_engine_learn(tiller_engine *engine,
                                  const char *request,
                                  const tiller_progress *progress,
                                  tiller_dictionary **out,
                                  tiller_text **report,
                                  tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Learning and examining guards with the engine ------------------------------------------------------- */

#ifdef TILLER_ENGINE

// Learns a guard: a monitor that fires on messages like some and not on messages like others, and a rule that refuses where
// it does.
//
// `request` is JSON: {"for": [messages to be refused], "not": [messages to be answered]}, and if wanted "name",
// "instruction" (what the model is told where it learns what refusing is), "false_positives" (the knob), "strength" (0 tries
// some), "messages", "max_tokens", "seed", "threads", "counts_as". `*report` is JSON: the monitor's layer and threshold, how
// well it tells the messages apart that set it, and what strengths did. Open the engine with several sequences. No plan is in
// force afterwards; progress counts messages.
//
// On success `*out` owns a new guard, to be freed with tiller_guard_free(), after tiller_guard_save(), and `*report`, which
// may be NULL, a text, to be freed with tiller_text_free().
TILLER_API
tiller_status tiller_engine_guard_learn(tiller_engine *engine,
                                        const char *request,
                                        const tiller_progress *progress,
                                        tiller_guard **out,
                                        tiller_text **report,
                                        tiller_error **err);

// Examines a guard on messages that it was not learned from.
//
// `request` is JSON: {"sets": [{"name": "mine", "refuse": true, "messages": […]}, …]}, and if wanted "max_tokens",
// "directions" (random ones that it is held against), "prompted" (whether a system prompt is tried), "seed". The report is
// JSON: for each set and method the shares that were refused, answered and neither, with intervals; where the monitors fire;
// what a prompt costs. No plan is in force afterwards; progress counts answers.
//
// On success `*out` owns a new text; free it with tiller_text_free().
TILLER_API
tiller_status tiller_engine_guard_test(tiller_engine *engine,
                                       const tiller_guard *guarding,
                                       const char *request,
                                       const tiller_progress *progress,
                                       tiller_text **out,
                                       tiller_error **err);

// What the monitors of the engine's plan read since the last call, and the verdicts that followed; see tiller_hook_watched().
//
// On success `*out` owns a new object; free it with tiller_watched_free().
TILLER_API
tiller_status tiller_engine_watched(tiller_engine *engine,
                                    tiller_watched **out,
                                    tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Evaluating with the engine -------------------------------------------------------------------------- */

#ifdef TILLER_ENGINE

// Evaluates features, dictionaries and plans on the model.
//
// `request` is JSON. {"evaluate": "entanglement"} asks whether features say one concept each, and whether steering by
// one leaves the others alone (arXiv 2512.15134), on built-in sentences in which two concepts are correlated by "rho"
// (a list of numbers from 0 to 1), or on "data", a JSONL file of {"sentence": "...", "concept": true, ...}, grouped by
// "attributes". Other keys: "sentences", "test", "layer", "read_layer", "pooling" ("last", "mean"), "files"
// (dictionaries, learned features, coders), "fit" (a list of "topk", "batchtopk", "relu", "ssae", "conca", "neurons",
// "diff_mean", "probe"), "n_features", "k", "steps", "columns", "steer", "strength", "pairs", "random", "generate",
// "seed", "threads"; all may be left out. `*report` is JSON: for each correlation and featurizer MCC, k-sparse
// probing, DCI, effects, selectivity, leak and additivity.
//
// {"evaluate": "quality", "dictionary": "d.gguf", "text": ["t.txt"]} asks how good a dictionary is on the model:
// sparsity, reconstruction, what the model notices of reconstructions, density, directions, k-sparse probing of
// "labelled" texts by their key "label", and absorption on "words". Other keys: "max_tokens", "score_tokens",
// "window", "labelled_tokens", "seed".
//
// {"evaluate": "consistency", "dictionary": "d.gguf"} asks whether paraphrases are answered alike, and what turning
// the features that tell does and costs (arXiv 2501.11036); the report has the plan. Other keys: "layer" (in place of
// a dictionary), "groups", "chat", "max_tokens", "features", "strengths", "phase", "fit", "choose", "slack",
// "controls", "questions", "seed".
//
// {"evaluate": "explained", "dictionary": "d.gguf", "rows": ["dir"], "held_out": ["dir"]} compares six ways to explain
// features. Other keys: "final_rows", "features", "shown", "vocabulary", "spans", "push", "seed".
//
// {"evaluate": "universality", "model_a": "…", "dictionary_a": "…", "model_b": "…", "dictionary_b": "…", "text":
// ["t.txt"]} asks whether the features of two dictionaries are the same (arXiv 2410.06981); it opens its own models.
// {"evaluate": "card", "plan": "p.json"} makes the steering card of a plan, as JSON. examples/command.md names the
// commands with the same options.
//
// Open the engine with several sequences: texts are read side by side. No plan is in force afterwards; progress counts
// texts or tokens.
//
// On success `*report` owns a text, to be freed with tiller_text_free().
TILLER_API
tiller_status tiller_engine_evaluate(tiller_engine *engine,
                                     const char *request,
                                     const tiller_progress *progress,
                                     tiller_text **report,
                                     tiller_error **err);

#endif /* TILLER_ENGINE */

/* ---- Making a model steerable ---------------------------------------------------------------------------- */

#ifdef TILLER_ENGINE

// How a model is adopted. Zero and NULL mean the default.
typedef struct {
    // sizeof(tiller_adopt_options).
    uint32_t size;
    // Threads; 0 takes all.
    uint32_t threads;
    // The time that it may take; 0 means 30.
    double minutes;
    // Text files to learn from, as tiller_engine_harvest() reads them; without any the model writes its own text.
    const char *const *files;
    // How many there are.
    size_t n_files;
    // Layers to try; without any three in the upper half.
    const uint32_t *layers;
    // How many there are.
    size_t n_layers;
    // Features of the dictionary; 0: one for a hundred rows.
    uint32_t n_features;
    // Layers that go to a GPU, if this build has one.
    uint32_t gpu_layers;
    // 1 keeps the rows and the trial dictionaries.
    uint32_t keep;
    // Always 0.
    uint32_t reserved;
} tiller_adopt_options;

// What an adoption made.
typedef struct {
    // Set it to sizeof(tiller_adopted) before the call.
    uint32_t size;
    // The layer whose features steer best.
    uint32_t layer;
    // Features of the dictionary.
    uint64_t n_features;
    // Rows that it was trained on.
    uint64_t n_rows;
    // Mean number of active features in a row of held-out text.
    double l0;
    // Fraction of variance unexplained there.
    double fvu;
    // Cross-entropy recovered there.
    double recovered;
    // How much more often words of a concept come when the model is steered by other words of it: the median;
    // 0 if there was no time to measure it.
    double gain;
    // Perplexity of that text, steered over unsteered: the median; 0 likewise.
    double perplexity;
    // Seconds that it took, earlier calls included.
    double seconds;
    // 1 if the dictionary passes its self-test.
    uint32_t fits;
    // Always 0.
    uint32_t reserved;
} tiller_adopted;

// Makes the model file `model` steerable on this machine: tries a few layers on a small budget, takes the one whose
// features steer concepts best, harvests, trains, explains and tests a dictionary. Writes dictionary.gguf,
// dictionary.jsonl (its explanations) and report.md to `directory`.
//
// Progress counts seconds; its note says what is being done. After TILLER_CANCELLED, or a crash, the same call goes on
// where that one ended.
TILLER_API
tiller_status tiller_adopt(const char *model,
                           const char *directory,
                           const tiller_adopt_options *given,
                           const tiller_progress *progress,
                           tiller_adopted *out,
                           tiller_error **err);

#endif /* TILLER_ENGINE */

#ifdef __cplusplus
}
#endif

#endif /* TILLER_H */
