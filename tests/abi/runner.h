/* What the C and the C++ runner share: reading the table, comparing, counting. The operations are theirs. */
#ifndef RUNNER_H
#define RUNNER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiller.h"

#define MOST_ARGUMENTS 16

static inline const char *status_name(tiller_status status) {
    switch (status) {
        case TILLER_OK: return "OK";
        case TILLER_E_ARGUMENT: return "ARGUMENT";
        case TILLER_E_IO: return "IO";
        case TILLER_E_FORMAT: return "FORMAT";
        case TILLER_E_UNSUPPORTED: return "UNSUPPORTED";
        case TILLER_E_MISMATCH: return "MISMATCH";
        case TILLER_E_NUMERIC: return "NUMERIC";
        case TILLER_E_CANCELLED: return "CANCELLED";
        case TILLER_E_PANIC: return "PANIC";
    }
    return "?";
}

/* Whether what came out is what the table says. */
static inline bool as_expected(const char *status, const char *expected, const char *got_status, const char *got) {
    if (strcmp(status, got_status) != 0) return false;
    if (strcmp(status, "OK") != 0) return strstr(got, expected) != NULL;
    if (expected[0] == '~') return strstr(got, expected + 1) != NULL;
    return strcmp(expected, got) == 0;
}

/* Runs one operation: its status and what came out. */
typedef void (*run_fn)(char **arguments, int n, const char **status, const char **result);

/* Reads the table and runs every case; gives the number of failures. */
static inline int run_table(const char *path, run_fn run) {
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return 1;
    }
    static char line[1 << 16];
    int number = 0, cases = 0, failures = 0;
    while (fgets(line, sizeof line, file)) {
        number++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#') continue;
        char *fields[MOST_ARGUMENTS + 2], *at = line;
        int n = 0;
        while (at && n < MOST_ARGUMENTS + 2) {
            fields[n++] = at;
            at = strchr(at, '\t');
            if (at) *at++ = '\0';
        }
        const char *status = "?", *result = "";
        cases++;
        if (n >= 3) run(fields + 2, n - 2, &status, &result);
        if (n < 3 || !as_expected(fields[0], fields[1], status, result)) {
            failures++;
            fprintf(stderr, "%s:%d: %s\n  expected %s %s\n  found    %s %s\n", path, number, n > 2 ? fields[2] : line,
                    fields[0], n > 1 ? fields[1] : "", status, result);
        }
    }
    fclose(file);
    printf("%d cases, %d failures\n", cases, failures);
    return cases == 0 ? 1 : failures;
}

#endif
