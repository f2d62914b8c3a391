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

// A text that a call made: UTF-8, followed by a NUL. Owned by the caller; free with tiller_text_free().
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

#ifdef __cplusplus
}
#endif

#endif /* TILLER_H */
