/* steer.c - a llama.cpp program, with tiller added in a few lines: text from a model, steered by a plan.
 *
 *     steer MODEL DICTIONARY PLAN PROMPT [MAX_TOKENS [SEED]]
 *
 * Greedy; with a SEED, sampled at temperature 0.8 from the upper 95 % of the probability.
 *
 * The program owns its llama.cpp; libtiller never sees it but through tiller_llama.h. What belongs to tiller is marked.
 * examples/build.sh compiles it.
 */
#define _DEFAULT_SOURCE /* sysconf() */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llama.h"

#include "tiller_llama.h"

/* tiller: every call that fails says why. */
static void check(tiller_status status, tiller_error **err) {
    if (status == TILLER_OK) return;
    fprintf(stderr, "error: %s\n", tiller_error_message(*err));
    exit(1);
}

static void die(const char *what) {
    fprintf(stderr, "error: %s\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user) {
    (void) user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: %s MODEL DICTIONARY PLAN PROMPT [MAX_TOKENS [SEED]]\n", argv[0]);
        return 2;
    }
    const char *prompt = argv[4];
    const int max_tokens = argc > 5 ? atoi(argv[5]) : 100;

    llama_log_set(quiet, NULL);
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) die("cannot load the model");
    const struct llama_vocab *vocab = llama_model_get_vocab(model);

    /* tiller: a dictionary, and a plan compiled for this model. */
    tiller_error *err = NULL;
    tiller_dictionary *dictionary = NULL;
    tiller_plan *plan = NULL;
    tiller_compiled *compiled = NULL;
    check(tiller_dictionary_open(argv[2], &dictionary, &err), &err);
    check(tiller_plan_open(argv[3], &plan, &err), &err);
    const tiller_named named = {"", dictionary};
    char architecture[64];
    const tiller_target target = tiller_llama_target(model, architecture, sizeof architecture);
    check(tiller_plan_compile(plan, &named, 1, &target, 0, &compiled, &err), &err);

    /* tiller: the hook goes into the context's parameters. */
    const tiller_ggml ggml = tiller_llama_ggml();
    tiller_hook *hook = NULL;
    check(tiller_hook_new(&ggml, &hook, &err), &err);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 2048;
    params.n_threads = params.n_threads_batch = (int32_t) sysconf(_SC_NPROCESSORS_ONLN);
    tiller_llama_install(&params, hook);
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context) die("cannot make a context");
    check(tiller_llama_set_plan(context, model, hook, compiled, &err), &err);

    int n_tokens = -llama_tokenize(vocab, prompt, (int32_t) strlen(prompt), NULL, 0, true, true);
    llama_token *tokens = (llama_token *) malloc((size_t) n_tokens * sizeof *tokens);
    llama_tokenize(vocab, prompt, (int32_t) strlen(prompt), tokens, n_tokens, true, true);
    struct llama_sampler *sampler = llama_sampler_chain_init(llama_sampler_chain_default_params());
    if (argc > 6) {
        llama_sampler_chain_add(sampler, llama_sampler_init_top_p(0.95f, 1));
        llama_sampler_chain_add(sampler, llama_sampler_init_temp(0.8f));
        llama_sampler_chain_add(sampler, llama_sampler_init_dist((uint32_t) strtoul(argv[6], NULL, 10)));
    } else {
        llama_sampler_chain_add(sampler, llama_sampler_init_greedy());
    }
    struct llama_batch batch = llama_batch_get_one(tokens, n_tokens);
    for (int i = 0; i < max_tokens; i++) {
        if (llama_decode(context, batch) != 0) die("cannot compute");
        llama_token token = llama_sampler_sample(sampler, context, -1);
        if (llama_vocab_is_eog(vocab, token)) break;
        char piece[256];
        const int32_t n = llama_token_to_piece(vocab, token, piece, sizeof piece, 0, false);
        if (n > 0) fwrite(piece, 1, (size_t) n, stdout);
        fflush(stdout);
        tokens[0] = token;
        batch = llama_batch_get_one(tokens, 1);
    }
    putchar('\n');

    /* tiller: what was done, and what went wrong inside the graph. */
    tiller_report report;
    report.size = sizeof report;
    const tiller_status status = tiller_hook_finish(hook, &report, &err);
    fprintf(stderr, "%llu rows seen, %llu edited, %llu not needed, %llu refused\n", (unsigned long long) report.rows_seen,
            (unsigned long long) report.rows_edited, (unsigned long long) report.rows_not_needed,
            (unsigned long long) report.rows_refused);
    check(status, &err);

    free(tokens);
    llama_sampler_free(sampler);
    llama_free(context); /* before the hook that it calls */
    llama_model_free(model);
    tiller_hook_free(hook);
    tiller_compiled_free(compiled);
    tiller_plan_free(plan);
    tiller_dictionary_free(dictionary);
    return 0;
}
