// steer.cpp - steer.c in C++: a llama.cpp program, with tiller added in a few lines.
//
//     steer MODEL DICTIONARY PLAN PROMPT [MAX_TOKENS [SEED]]
//
// The program owns its llama.cpp. examples/build.sh compiles it.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "llama.h"

#include "tiller.hpp"
#include "tiller_llama.h"

template <class T>
T *some(T *pointer, const char *what) {
    if (!pointer) throw std::runtime_error(what);
    return pointer;
}

static void steer(const char *model_file, const char *dictionary_file, const char *plan_file, const std::string &prompt, int max_tokens,
                  const char *seed) {
    llama_log_set([](ggml_log_level level, const char *text, void *) { if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr); }, nullptr);
    const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
        some(llama_model_load_from_file(model_file, llama_model_default_params()), "cannot load the model"), llama_model_free);
    const llama_vocab *vocab = llama_model_get_vocab(model.get());

    // tiller: a dictionary, a plan compiled for this model, and a hook in the context's parameters.
    const tiller::dictionary dictionary{std::string(dictionary_file)};
    char architecture[64];
    const tiller_target target = tiller_llama_target(model.get(), architecture, sizeof architecture);
    const tiller::compiled compiled = tiller::plan(std::string(plan_file)).compile({{"", &dictionary}}, target);
    tiller::hook hook(tiller_llama_ggml());  // outlives the context below
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 2048;
    params.n_threads = params.n_threads_batch = static_cast<int32_t>(std::thread::hardware_concurrency());
    tiller_llama_install(&params, hook.get());
    const std::unique_ptr<llama_context, decltype(&llama_free)> context(
        some(llama_init_from_model(model.get(), params), "cannot make a context"), llama_free);
    tiller::detail::call([&](tiller_error **err) {
        return tiller_llama_set_plan(context.get(), model.get(), hook.get(), compiled.get(), err);
    });

    const auto length = static_cast<int32_t>(prompt.size());
    std::vector<llama_token> tokens(static_cast<size_t>(-llama_tokenize(vocab, prompt.data(), length, nullptr, 0, true, true)));
    llama_tokenize(vocab, prompt.data(), length, tokens.data(), static_cast<int32_t>(tokens.size()), true, true);
    const std::unique_ptr<llama_sampler, decltype(&llama_sampler_free)> sampler(
        llama_sampler_chain_init(llama_sampler_chain_default_params()), llama_sampler_free);
    if (seed) {
        llama_sampler_chain_add(sampler.get(), llama_sampler_init_top_p(0.95f, 1));
        llama_sampler_chain_add(sampler.get(), llama_sampler_init_temp(0.8f));
        llama_sampler_chain_add(sampler.get(), llama_sampler_init_dist(static_cast<uint32_t>(std::stoul(seed))));
    } else {
        llama_sampler_chain_add(sampler.get(), llama_sampler_init_greedy());
    }
    for (int i = 0; i < max_tokens; i++) {
        const llama_batch batch = llama_batch_get_one(tokens.data(), static_cast<int32_t>(tokens.size()));
        if (llama_decode(context.get(), batch) != 0) throw std::runtime_error("cannot compute");
        tokens.assign(1, llama_sampler_sample(sampler.get(), context.get(), -1));
        if (llama_vocab_is_eog(vocab, tokens[0])) break;
        char piece[256];
        const int32_t n = llama_token_to_piece(vocab, tokens[0], piece, sizeof piece, 0, false);
        if (n > 0) fwrite(piece, 1, static_cast<size_t>(n), stdout);
        fflush(stdout);
    }
    putchar('\n');

    // tiller: what was done, and what went wrong inside the graph.
    const tiller::ledger ledger = hook.ledger();
    const tiller_report report = ledger.report();
    fprintf(stderr, "%llu rows seen, %llu edited, %llu not needed, %llu refused\n",
            static_cast<unsigned long long>(report.rows_seen), static_cast<unsigned long long>(report.rows_edited),
            static_cast<unsigned long long>(report.rows_not_needed), static_cast<unsigned long long>(report.rows_refused));
    for (const tiller::fault &fault : ledger.faults()) throw fault.what;
}

int main(int argc, char **argv) try {
    if (argc < 5) {
        fprintf(stderr, "usage: %s MODEL DICTIONARY PLAN PROMPT [MAX_TOKENS [SEED]]\n", argv[0]);
        return 2;
    }
    steer(argv[1], argv[2], argv[3], argv[4], argc > 5 ? atoi(argv[5]) : 100, argc > 6 ? argv[6] : nullptr);
    return 0;
} catch (const std::exception &error) {
    fprintf(stderr, "error: %s\n", error.what());
    return 1;
}
