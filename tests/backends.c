/* Rows in memory that is not the host's: libtiller as a guest in a llama.cpp whose layers lie on a device.
 *
 *     backends MODEL DICTIONARY LIBRARIES SERVER TOKEN...
 *
 * LIBRARIES is where ggml's backends lie; SERVER, unless it is empty, is the HOST:PORT of an RPC server. The model is
 * SmolLM2-135M. It runs on the processor alone, then with all or some layers on two devices, where there are two, and
 * on one. Each time a prompt is decoded twice, then given tokens one by one. From 32 rows on (or from
 * GGML_OP_OFFLOAD_MIN_BATCH) ggml may compute on a device with weights that are the processor's.
 *
 * - The ledgers are the processor's. Where devices meet, a point of the first graph may be found when its rows have moved
 *   on: then they are refused, and a fault says so.
 * - The logits are as near to the processor's as unsteered ones are: norms of differences over norms.
 * - A plan on positions 3, 4 and 5 moves three rows each way, also in the graph in which its points are found. */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

#include "tiller_llama.h"

enum { N_LAYER = 30, D_MODEL = 576, MAX_TOKENS = 64 };
/* Tokens that are decoded one by one; those before them are the prompt. */
enum { N_LAST = 6 };
/* Where the layers lie, the output counted as one; the others are the processor's. */
static const struct {
    int n_devices, n_layers;
} PLACEMENTS[] = {{2, N_LAYER + 1}, {2, 20}, {1, N_LAYER + 1}, {1, 15}};
/* Of the distance of unsteered logits: other rows are rounded otherwise. And what one last bit may do to logits, where
 * the processors are of one kind and the unsteered logits are equal: see tests/support/agree.rs. */
static const double TOLERANCE = 2.0, FLOOR = 0.01;
/* A plan that did not act would be this many times as far off as is allowed. */
static const double SEEN = 3.0;

/* Rules. */
#define ADD(layer, strength, hook, select) \
    "{\"op\": \"add\", \"features\": [55], \"layer\": " #layer ", \"strength\": " #strength ", " \
    "\"hook\": \"" hook "\", \"select\": {" select "}}"
#define CLAMP(select) \
    "{\"op\": \"min_clamp\", \"features\": [1640, 3218, 4563], \"strength\": 60, \"select\": {" select "}}"
#define REST "\"from\": 1"
#define THREE "\"from\": 3, \"to\": 6"

enum { AROUND, SITES, FEW, N_PLANS };
static const char *const PLANS[N_PLANS] = {
    /* residual streams at borders of devices and elsewhere */
    "{\"version\": 1, \"rules\": [" ADD(7, 6, "resid_post", REST) ", " ADD(10, 6, "resid_post", REST) ", "
    ADD(15, 6, "resid_post", REST) ", " ADD(20, 6, "resid_post", REST) ", " CLAMP(REST) "]}",
    /* sites inside of blocks at a border */
    "{\"version\": 1, \"rules\": [" ADD(15, 12, "attn_out", REST) ", " ADD(15, 12, "resid_mid", REST) ", "
    ADD(15, 12, "mlp_out", REST) ", " ADD(16, 12, "attn_out", REST) ", " ADD(16, 12, "resid_mid", REST) ", "
    ADD(16, 12, "mlp_out", REST) "]}",
    /* three positions at two points */
    "{\"version\": 1, \"rules\": [" ADD(15, 6, "resid_post", THREE) ", " CLAMP(THREE) "]}",
};

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
    char fault[3][256];                 /* the first fault of each */
    double *logits;                     /* of the second graph's last row and of all later rows */
    size_t n, n_vocab, row;             /* how many logits, and of one token; bytes of a row */
} outcome;

static tiller_report finish(tiller_hook *hook, char fault[256]) {
    tiller_error *err = NULL;
    tiller_ledger *ledger = NULL;
    tiller_report report;
    report.size = sizeof report;
    check(tiller_hook_ledger(hook, &ledger, &err), &err);
    check(tiller_ledger_report(ledger, &report, &err), &err);
    *fault = 0;
    if (tiller_ledger_n_faults(ledger) > 0) {
        tiller_fault first;
        first.size = sizeof first;
        check(tiller_ledger_fault(ledger, 0, &first, &err), &err);
        snprintf(fault, 256, "%s", first.what);
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
    check(tiller_hook_set_architecture(hook, "llama", &err), &err);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_threads = params.n_threads_batch = 1;
    tiller_llama_install(&params, hook);
    struct llama_context *context = llama_init_from_model(model, params);
    require(context != NULL, "cannot make a context");
    check(tiller_llama_set_plan(context, model, hook, plan, &err), &err);

    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model)), n_prompt = n_tokens - N_LAST;
    outcome out;
    out.n_vocab = (size_t) n_vocab;
    out.n = (size_t) (N_LAST + 1) * (size_t) n_vocab;
    out.row = (size_t) llama_model_n_embd(model) * sizeof(float);
    out.logits = (double *) calloc(out.n, sizeof *out.logits);
    require(out.logits != NULL, "no memory");
    decode(context, hook, tokens, n_prompt, 0);
    llama_synchronize(context);
    out.first = finish(hook, out.fault[0]);
    llama_memory_clear(llama_get_memory(context), true);
    n_read = n_written = 0;
    decode(context, hook, tokens, n_prompt, 0);
    double *to = take(context, out.logits, n_vocab);
    out.second = finish(hook, out.fault[1]);
    out.read = n_read, out.written = n_written;
    for (int i = n_prompt; i < n_tokens; i++) {
        decode(context, hook, tokens + i, 1, i);
        to = take(context, to, n_vocab);
    }
    out.later = finish(hook, out.fault[2]);
    llama_free(context);
    tiller_hook_free(hook);
    return out;
}

static double distance(const outcome *a, const outcome *b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < b->n; i++) {
        difference += (a->logits[i] - b->logits[i]) * (a->logits[i] - b->logits[i]);
        size += b->logits[i] * b->logits[i];
    }
    return sqrt(difference / size);
}

/* Rows of logits whose largest is that of the other's. */
static int n_agree(const outcome *a, const outcome *b) {
    int n = 0;
    for (size_t row = 0; row < b->n; row += b->n_vocab) {
        size_t best[2] = {row, row};
        for (size_t i = row; i < row + b->n_vocab; i++) {
            if (a->logits[i] > a->logits[best[0]]) best[0] = i;
            if (b->logits[i] > b->logits[best[1]]) best[1] = i;
        }
        n += best[0] == best[1];
    }
    return n;
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

/* A graph's ledger: the CPU's, or, of the first, rows at a point were left, and a fault says so. */
static void judge(const char *what, const tiller_report *own, const char *fault, const tiller_report *cpu, int first) {
    if (same(own, cpu)) return;
    say(what, own);
    printf("        %s\n", fault);
    expect(first, "rows were left after the first graph");
    expect(own->n_faults > 0 && own->rows_seen == cpu->rows_seen, "nothing is said of rows that were left");
    expect(own->rows_edited + own->rows_refused >= cpu->rows_edited, "rows were lost");
}

/* One placement of the model: unsteered, each plan through the compiled table, and the first through the probe. */
enum { N_RUNS = N_PLANS + 1 };
typedef struct {
    outcome plain, steered[N_RUNS];
} outcomes;

static outcomes all(
    const char *file, ggml_backend_dev_t *devices, int n_layers, tiller_compiled *const *plans, llama_token *tokens,
    int n_tokens
) {
    struct llama_model_params params = llama_model_default_params();
    params.devices = devices;
    params.n_gpu_layers = n_layers;
    struct llama_model *model = llama_model_load_from_file(file, params);
    require(model != NULL, "cannot load the model");
    outcomes out;
    out.plain = run(model, NULL, 0, tokens, n_tokens);
    for (int i = 0; i < N_RUNS; i++) {
        out.steered[i] = run(model, plans[i % N_PLANS], i / N_PLANS, tokens, n_tokens);
    }
    llama_model_free(model);
    return out;
}

/* Layers on devices against the CPU. `whole`: all rows lie in a device's memory. */
static void compare(const outcomes *own, const outcomes *cpu, int whole) {
    static const char *const names[N_PLANS] = {"residual streams", "sites in blocks", "three rows"};
    const double noise = distance(&own->plain, &cpu->plain);
    printf("        unsteered: logits %.1e from the CPU's, %d of %zu best tokens\n", noise,
           n_agree(&own->plain, &cpu->plain), cpu->plain.n / cpu->plain.n_vocab);
    for (int i = 0; i < N_RUNS; i++) {
        const int probe = i / N_PLANS, plan = i % N_PLANS;
        const outcome *steered = &own->steered[i], *wanted = &cpu->steered[plan];
        const double error = distance(steered, wanted), effect = distance(steered, &own->plain);
        printf("        %s, %s: %.1e from the CPU's, %d best tokens, %.1e off unsteered; %zu bytes read, %zu written\n",
               names[plan], probe ? "probe" : "table", error, n_agree(steered, wanted), effect, steered->read,
               steered->written);
        judge("first graph", &steered->first, steered->fault[0], &wanted->first, 1);
        judge("second graph", &steered->second, steered->fault[1], &wanted->second, 0);
        judge("later graphs", &steered->later, steered->fault[2], &wanted->later, 0);
        expect(error <= TOLERANCE * noise + FLOOR, "the logits are not the CPU's");
        if (plan != FEW) expect(effect >= SEEN * (TOLERANCE * noise + FLOOR), "the plan is not seen");
        if (plan != FEW) continue;
        const size_t most = 2 * 3 * steered->row;
        expect(steered->read <= most && steered->written <= most, "more travelled than the rows that are selected");
        if (whole) expect(steered->read == most && steered->written == most, "less travelled than the selected rows");
    }
}

int main(int argc, char **argv) {
    require(argc > 5 + N_LAST && argc <= 5 + MAX_TOKENS,
            "usage: backends MODEL DICTIONARY LIBRARIES SERVER TOKEN...");
    llama_token tokens[MAX_TOKENS];
    const int n_tokens = argc - 5;
    for (int i = 0; i < n_tokens; i++) tokens[i] = atoi(argv[5 + i]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    llama_log_set(quiet, NULL);
    llama_backend_init();
    ggml_backend_load_all_from_path(argv[3]);
    if (*argv[4]) {
        ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
        require(rpc != NULL, "no RPC backend was loaded");
        void *add = ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server");
        require(add != NULL, "the RPC backend takes no server");
        ggml_backend_reg_t server = ((ggml_backend_reg_t (*)(const char *)) add)(argv[4]);
        require(server != NULL, "the RPC server has no device");
        ggml_backend_register(server);
    }
    ggml_backend_dev_t devices[3] = {NULL, NULL, NULL}, none[] = {NULL};
    int n_devices = 0;
    for (size_t i = 0; i < ggml_backend_dev_count() && n_devices < 2; i++) {
        ggml_backend_dev_t own = ggml_backend_dev_get(i);
        const enum ggml_backend_dev_type type = ggml_backend_dev_type(own);
        if (type != GGML_BACKEND_DEVICE_TYPE_CPU && type != GGML_BACKEND_DEVICE_TYPE_ACCEL) devices[n_devices++] = own;
    }
    if (n_devices == 0) {
        printf("no device\n");
        return 77;
    }

    tiller_error *err = NULL;
    tiller_dictionary *dictionary = NULL;
    check(tiller_dictionary_open(argv[2], &dictionary, &err), &err);
    const tiller_named named = {"", dictionary};
    tiller_compiled *plans[N_PLANS];
    for (int i = 0; i < N_PLANS; i++) {
        tiller_plan *plan = NULL;
        check(tiller_plan_parse(PLANS[i], &plan, &err), &err);
        const tiller_target target = {sizeof target, N_LAYER, D_MODEL, "llama"};
        check(tiller_plan_compile(plan, &named, 1, &target, 0, &plans[i], &err), &err);
        tiller_plan_free(plan);
    }

    const outcomes cpu = all(argv[1], none, 0, plans, tokens, n_tokens);
    for (int i = 0; i < N_PLANS; i++) {
        say("on the CPU, second graph", &cpu.steered[i].second);
        require(cpu.steered[i].second.rows_edited > 0 && cpu.steered[i].second.n_faults == 0, "a plan does not act");
    }
    for (size_t i = 0; i < sizeof PLACEMENTS / sizeof *PLACEMENTS; i++) {
        if (PLACEMENTS[i].n_devices > n_devices) continue;
        for (int k = PLACEMENTS[i].n_devices; k < n_devices; k++) devices[k] = NULL;
        printf("        %d of %d layers on", PLACEMENTS[i].n_layers, N_LAYER + 1);
        for (int k = 0; devices[k]; k++) printf(" %s", ggml_backend_dev_name(devices[k]));
        printf("\n");
        const outcomes own = all(argv[1], devices, PLACEMENTS[i].n_layers, plans, tokens, n_tokens);
        compare(&own, &cpu, PLACEMENTS[i].n_layers > N_LAYER);
    }
    return failed;
}
