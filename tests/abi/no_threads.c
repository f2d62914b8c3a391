/* Makes an assertion of ggml fail inside the library: its threads cannot start, as on a system that has run out of them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TILLER_ENGINE
#include "tiller.h"

/* Stands in front of the C library's, for this program and for all that it loads. */
int pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *argument);
int pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *argument) {
    (void) thread, (void) attributes, (void) start, (void) argument;
    return EAGAIN;
}

int main(int n, char **arguments) {
    if (n != 2) return 2;
    tiller_engine_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.threads = 2;
    tiller_engine *engine = NULL;
    tiller_error *err = NULL;
    const tiller_status two = tiller_engine_open(arguments[1], &options, &engine, &err);
    puts(tiller_error_message(err));
    if (two != TILLER_E_UNSUPPORTED || engine) return 3;
    tiller_error_free(err);
    /* The thread that computes is there already. */
    options.threads = 1;
    if (tiller_engine_open(arguments[1], &options, &engine, NULL) != TILLER_OK) return 4;
    tiller_engine_free(engine);
    return 0;
}
