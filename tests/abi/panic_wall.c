/* Makes the library panic without asking it to: no thread can be had, as on a system that has run out of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiller.h"

/* Stands in front of the C library's, for this program and for all that it loads. */
int pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *argument);
int pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *argument) {
    (void) thread, (void) attributes, (void) start, (void) argument;
    return EAGAIN;
}

int main(void) {
    enum { d_model = 128, n_rows = 1 << 13 };
    static float matrix[d_model * d_model];
    for (int i = 0; i < d_model; i++) matrix[i * d_model + i] = 1;
    tiller_dictionary_parts parts;
    memset(&parts, 0, sizeof parts);
    parts.size = sizeof parts;
    parts.d_model = d_model;
    parts.n_features = d_model;
    parts.encoder = parts.decoder = matrix;
    float *data = (float *) calloc(n_rows * d_model, sizeof *data);
    tiller_dictionary *dictionary = NULL;
    tiller_codes *codes = NULL;
    tiller_error *err = NULL;
    if (!data || tiller_dictionary_new(&parts, &dictionary, &err) != TILLER_OK) return 2;
    const tiller_status one = tiller_dictionary_encode_rows(dictionary, data, n_rows * d_model, 1, &codes, &err);
    if (one != TILLER_OK || tiller_codes_n_rows(codes) != n_rows || err) return 3;
    tiller_codes *none = NULL;
    const tiller_status four = tiller_dictionary_encode_rows(dictionary, data, n_rows * d_model, 4, &none, &err);
    puts(tiller_error_message(err));
    if (four != TILLER_E_PANIC || tiller_error_status(err) != TILLER_E_PANIC || none) return 4;
    /* The handle may still be freed, and so may all else. */
    tiller_error_free(err);
    tiller_codes_free(codes);
    tiller_dictionary_free(dictionary);
    free(data);
    return 0;
}
