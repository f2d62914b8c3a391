/* Rows in memory that is not the host's: libtiller as a guest in a llama.cpp whose layers lie on a device.
 *
 *     backends MODEL DICTIONARY LIBRARIES SERVER TOKEN...
 *
 * LIBRARIES is where ggml's backends lie. The device is the first that is no CPU; SERVER, unless it is empty, is
 * the HOST:PORT of an RPC server, whose device comes first. The model runs on the CPU alone, with all layers on the device,
 * and with half of them there. Each time a prompt is decoded twice, then tokens one by one, whatever the model says: once
 * unsteered, once under a plan of clamps on layers around the border between the devices, through the compiled table and
 * through the probe.
 *
 * - The ledgers are the CPU's, the second graph's and all later ones', with no fault. In the first graph a point at the
 *   border may be found too late; then its rows are refused, and a fault says so.
 * - The logits are the CPU's as far as those of the unsteered model are. Errors are of the logits of all tokens
 *   together: sum of squared differences by the sum of squared deviations from the mean.
 * - A plan on positions 3, 4 and 5 moves three rows each way, once they are known. */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

#include "tiller_llama.h"

enum { N_PROMPT = 34, MAX_TOKENS = 64 }; /* from 32 rows on, ggml computes on a device with weights that are elsewhere */
/* Roundings differ in other rows than the unsteered ones, whose error is the yardstick. */
static const double TOLERANCE = 4.0;
/* A plan that did not act would be seen as an error this many times the largest that is allowed. */
static const double SEEN = 20.0;

static const char *const AROUND =
    "{\"version\": 1, \"rules\": ["
    "{\"op\": \"add\", \"features\": [55], \"strength\": 6, \"layer\": 7, \"select\": {\"from\": 1}},"
    "{\"op\": \"add\", \"features\": [55], \"strength\": 6, \"layer\": 14, \"select\": {\"from\": 1}},"
    "{\"op\": \"add\", \"features\": [55], \"strength\": 6, \"layer\": 15, \"select\": {\"from\": 1}},"
    "{\"op\": \"add\", \"features\": [55], \"strength\": 6, \"layer\": 16, \"select\": {\"from\": 1}},"
    "{\"op\": \"min_clamp\", \"features\": [1640, 3218, 4563], \"strength\": 60}]}";
static const char *const FEW =
    "{\"version\": 1, \"rules\": ["
    "{\"op\": \"add\", \"features\": [55], \"strength\": 6, \"layer\": 15, \"select\": {\"from\": 3, \"to\": 6}},"
    "{\"op\": \"min_clamp\", \"features\": [1640, 3218], \"strength\": 60, \"select\": {\"from\": 3, \"to\": 6}}]}";

static int failed;

static void check(tiller_status status, tiller_error **err) {
    if (status == TILLER_OK) return;
    fprintf(stderr, "error: %s\n", *err ? tiller_error_message(*err) : "llama.cpp refuses");
    exit(1);
}

static void require(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "error: %s\n", what);
    exit(1);
}

static void expect(int condition, const char *what) {
    if (condition) return;
    printf("        WRONG: %s\n", what);
    failed = 1;
}

static void quiet(enum ggml_log_level level, const char *text, void *user) {
    (void) user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

/* The table's way to rows, with what passes it: bytes of floats read and written. */
static tiller_ggml table;
static size_t n_read, n_written;

static void counted_get(const struct ggml_tensor *tensor, void *to, size_t offset, size_t n) {
    if (tensor->type == GGML_TYPE_F32) n_read += n;
    table.get(tensor, to, offset, n);
}

static void counted_set(struct ggml_tensor *tensor, const void *from, size_t offset, size_t n) {
    n_written += n;
    table.set(tensor, from, offset, n);
}

typedef struct {
    tiller_report first, second, later; /* the prompt, the prompt again, the tokens after it */
    size_t read, written;               /* bytes in the second graph */
    char fault[256];                    /* of the first graph */
    double *logits;                     /* of the second graph's last row and of all later rows */
} outcome;

static tiller_report finish(tiller_hook *hook, char *fault, size_t size) {
    tiller_error *err = NULL;
    tiller_ledger *ledger = NULL;
    tiller_report report;
    report.size = sizeof report;
    check(tiller_hook_ledger(hook, &ledger, &err), &err);
    check(tiller_ledger_report(ledger, &report, &err), &err);
    for (size_t i = tiller_ledger_n_faults(ledger); i-- > 0;) {
        tiller_fault own;
        own.size = sizeof own;
        check(tiller_ledger_fault(ledger, i, &own, &err), &err);
        if (fault) snprintf(fault, size, "%s", own.what);
        else printf("        fault: %llu x %s\n", (unsigned long long) own.count, own.what);
    }
    tiller_ledger_free(ledger);
    return report;
}

static void decode(struct llama_context *context, tiller_hook *hook, llama_token *tokens, int n, int position) {
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int i = 0; i < n; i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = position + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i == n - 1;
    }
    tiller_error *err = NULL;
    check(tiller_llama_announce(hook, &batch, position == 0 ? n : 0, &err), &err);
    require(llama_decode(context, batch) == 0, "llama_decode");
    llama_batch_free(batch);
}

static double *take(struct llama_context *context, double *to, int n_vocab) {
    const float *logits = llama_get_logits_ith(context, -1);
    double mean = 0;
    for (int i = 0; i < n_vocab; i++) mean += logits[i] / (double) n_vocab;
    for (int i = 0; i < n_vocab; i++) to[i] = logits[i] - mean;
    return to + n_vocab;
}

static outcome run(
    struct llama_model *model, const tiller_compiled *plan, int probe, llama_token *tokens, int n_tokens
) {
    tiller_error *err = NULL;
    table = tiller_llama_ggml();
    if (probe) check(tiller_ggml_probe(dlsym, RTLD_DEFAULT, &table, &err), &err);
    tiller_ggml counted = table;
    counted.get = counted_get;
    counted.set = counted_set;
    tiller_hook *hook = NULL;
    check(tiller_hook_new(&counted, &hook, &err), &err);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_threads = params.n_threads_batch = 1;
    tiller_llama_install(&params, hook);
    struct llama_context *context = llama_init_from_model(model, params);
    require(context != NULL, "cannot make a context");
    check(tiller_llama_set_plan(context, model, hook, plan, &err), &err);

    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    outcome out = {.logits = (double *) calloc((size_t) (n_tokens - N_PROMPT + 1) * (size_t) n_vocab, sizeof(double))};
    require(out.logits != NULL, "no memory");
    decode(context, hook, tokens, N_PROMPT, 0);
    llama_synchronize(context);
    out.first = finish(hook, out.fault, sizeof out.fault);
    llama_memory_clear(llama_get_memory(context), true);
    n_read = n_written = 0;
    decode(context, hook, tokens, N_PROMPT, 0);
    double *to = take(context, out.logits, n_vocab);
    out.second = finish(hook, NULL, 0);
    out.read = n_read, out.written = n_written;
    for (int i = N_PROMPT; i < n_tokens; i++) {
        decode(context, hook, tokens + i, 1, i);
        to = take(context, to, n_vocab);
    }
    out.later = finish(hook, NULL, 0);
    llama_free(context);
    tiller_hook_free(hook);
    return out;
}

static double error_of(const outcome *a, const outcome *b, size_t n) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (a->logits[i] - b->logits[i]) * (a->logits[i] - b->logits[i]);
        size += b->logits[i] * b->logits[i];
    }
    return difference / size;
}

static int same(const tiller_report *a, const tiller_report *b) {
    return a->graphs == b->graphs && a->n_faults == 0 && b->n_faults == 0 && a->rows_seen == b->rows_seen &&
           a->rows_edited == b->rows_edited && a->rows_not_needed == b->rows_not_needed &&
           a->rows_refused == b->rows_refused && a->rows_restored == b->rows_restored;
}

static void say(const char *what, const tiller_report *report) {
    printf("        %s: %llu rows seen, %llu edited, %llu refused, %u faults\n", what,
           (unsigned long long) report->rows_seen, (unsigned long long) report->rows_edited,
           (unsigned long long) report->rows_refused, report->n_faults);
}

/* The prompt's first graph: all as on the CPU, or rows of a point were left, and a fault says so. */
static void judge_first(const outcome *own, const outcome *cpu) {
    const tiller_report *first = &own->first;
    if (same(first, &cpu->first)) return;
    say("first graph", first);
    printf("        %s\n", own->fault);
    expect(first->n_faults > 0 && first->rows_seen == cpu->first.rows_seen, "the first graph is silent about rows");
    expect(first->rows_edited + first->rows_refused >= cpu->first.rows_edited, "the first graph lost rows");
}

typedef struct {
    outcome plain, around[2], few[2]; /* through the compiled table, through the probe */
} outcomes;

static outcomes all(
    const char *file, ggml_backend_dev_t device, int n_layers, const tiller_compiled *const plans[2],
    llama_token *tokens, int n_tokens, int *d_model, int *n_vocab
) {
    ggml_backend_dev_t devices[] = {device, NULL};
    struct llama_model_params params = llama_model_default_params();
    params.devices = devices;
    params.n_gpu_layers = n_layers;
    struct llama_model *model = llama_model_load_from_file(file, params);
    require(model != NULL, "cannot load the model");
    *d_model = llama_model_n_embd(model);
    *n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    outcomes out = {.plain = run(model, NULL, 0, tokens, n_tokens)};
    for (int probe = 0; probe < 2; probe++) {
        out.around[probe] = run(model, plans[0], probe, tokens, n_tokens);
        out.few[probe] = run(model, plans[1], probe, tokens, n_tokens);
    }
    llama_model_free(model);
    return out;
}

/* One way of offloading against the CPU. */
static void compare(const outcomes *own, const outcomes *cpu, int whole, size_t row, size_t n) {
    const double noise = error_of(&own->plain, &cpu->plain, n);
    printf("        logits, unsteered: error %.1e\n", noise);
    for (int probe = 0; probe < 2; probe++) {
        const outcome *steered = &own->around[probe], *few = &own->few[probe];
        const double error = error_of(steered, &cpu->around[0], n), effect = error_of(steered, &own->plain, n);
        printf("        %s: error %.1e, effect of the plan %.1e\n", probe ? "probe" : "table", error, effect);
        say("second graph", &steered->second);
        printf("        3 rows at 2 points: %zu bytes read, %zu written\n", few->read, few->written);
        judge_first(steered, &cpu->around[0]);
        judge_first(few, &cpu->few[0]);
        expect(same(&steered->second, &cpu->around[0].second), "the second graph's ledger is not the CPU's");
        expect(same(&steered->later, &cpu->around[0].later), "the later ledger is not the CPU's");
        expect(same(&few->second, &cpu->few[0].second) && same(&few->later, &cpu->few[0].later),
               "of few rows, the ledger is not the CPU's");
        expect(error <= TOLERANCE * noise, "the logits are not the CPU's");
        expect(effect >= SEEN * TOLERANCE * noise, "the plan is not seen");
        /* Of half the layers, the points may lie in the host's memory. */
        const size_t most = 2 * 3 * row;
        expect(few->read <= most && few->written <= most, "more rows travelled than the plan selects");
        if (whole) expect(few->read == most && few->written == most, "fewer rows travelled than the plan selects");
    }
}

int main(int argc, char **argv) {
    require(argc > 5 + N_PROMPT && argc <= 5 + MAX_TOKENS, "usage: backends MODEL DICTIONARY LIBRARIES SERVER TOKEN...");
    llama_token tokens[MAX_TOKENS];
    const int n_tokens = argc - 5;
    for (int i = 0; i < n_tokens; i++) tokens[i] = atoi(argv[5 + i]);
    llama_log_set(quiet, NULL);
    llama_backend_init();
    ggml_backend_load_all_from_path(argv[3]);
    if (*argv[4]) {
        ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
        require(rpc != NULL, "no RPC backend was loaded");
        ggml_backend_reg_t (*add)(const char *) =
            (ggml_backend_reg_t (*)(const char *)) ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server");
        ggml_backend_reg_t server = add(argv[4]);
        require(server != NULL, "the RPC server has no device");
        ggml_backend_register(server);
    }
    ggml_backend_dev_t device = NULL;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t own = ggml_backend_dev_get(i);
        const enum ggml_backend_dev_type type = ggml_backend_dev_type(own);
        if (type != GGML_BACKEND_DEVICE_TYPE_CPU && type != GGML_BACKEND_DEVICE_TYPE_ACCEL) device = own;
    }
    if (!device) {
        printf("no device\n");
        return 77;
    }

    tiller_error *err = NULL;
    tiller_dictionary *dictionary = NULL;
    check(tiller_dictionary_open(argv[2], &dictionary, &err), &err);
    const tiller_named named = {"", dictionary};
    const char *const texts[] = {AROUND, FEW};
    const tiller_compiled *plans[2];
    for (int i = 0; i < 2; i++) {
        tiller_plan *plan = NULL;
        tiller_compiled *compiled = NULL;
        check(tiller_plan_parse(texts[i], &plan, &err), &err);
        check(tiller_plan_compile(plan, &named, 1, 30, 576, 0, &compiled, &err), &err);
        plans[i] = compiled;
        tiller_plan_free(plan);
    }

    int d_model, n_vocab;
    const outcomes cpu = all(argv[1], NULL, 0, plans, tokens, n_tokens, &d_model, &n_vocab);
    const size_t row = (size_t) d_model * sizeof(float), n = (size_t) n_vocab * (size_t) (n_tokens - N_PROMPT + 1);
    say("on the CPU, second graph", &cpu.around[0].second);
    require(cpu.around[0].second.rows_edited > 0 && cpu.few[0].second.rows_edited == 6, "the plans do not act");
    for (int half = 0; half < 2; half++) {
        printf("        %s of the layers on %s (%s)\n", half ? "half" : "all", ggml_backend_dev_name(device),
               ggml_backend_dev_description(device));
        const outcomes own = all(argv[1], device, half ? 15 : 99, plans, tokens, n_tokens, &d_model, &n_vocab);
        compare(&own, &cpu, !half, row, n);
    }
    return failed;
}
