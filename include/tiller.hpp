// tiller.hpp - tiller.h for C++17: handles that free themselves, failures as exceptions. Header only.
//
// Every class owns one handle of tiller.h, can be moved but not copied, and gives the handle itself by get(), so that the
// two headers mix. What tiller.h says of life, threads and units holds here word for word. Functions that can fail throw
// tiller::error; nothing else throws but the standard library.
#ifndef TILLER_HPP
#define TILLER_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tiller.h"

namespace tiller {

// A failed call: what() is the message, status() is for branching.
class error : public std::runtime_error {
public:
    error(tiller_status status, const std::string &message, const std::string &hint)
        : std::runtime_error(message), status_(status), hint_(hint) {}
    tiller_status status() const noexcept { return status_; }
    // What to do about it; "" where the message says all.
    const std::string &hint() const noexcept { return hint_; }

private:
    tiller_status status_;
    std::string hint_;
};

namespace detail {

template <auto Free>
struct freer {
    template <class T>
    void operator()(T *handle) const noexcept {
        Free(handle);
    }
};

// A handle of tiller.h that frees itself.
template <class T, auto Free>
using owned = std::unique_ptr<T, freer<Free>>;

// Calls `f(err)` and turns a failure into an exception.
template <class F>
void call(F &&f) {
    tiller_error *err = nullptr;
    const tiller_status status = f(&err);
    if (status == TILLER_OK) return;
    const owned<tiller_error, tiller_error_free> held(err);
    const char *hint = tiller_error_hint(err);
    throw error(tiller_error_status(err), tiller_error_message(err), hint ? hint : "");
}

// Calls `f(out, err)`, which makes a handle.
template <class T, class F>
T *make(F &&f) {
    T *handle = nullptr;
    call([&](tiller_error **err) { return f(&handle, err); });
    return handle;
}

// Calls `f(out, err)`, which makes a text.
template <class F>
std::string text(F &&f) {
    const owned<tiller_text, tiller_text_free> held(make<tiller_text>(f));
    return std::string(tiller_text_data(held.get()), tiller_text_length(held.get()));
}

inline std::vector<const char *> pointers(const std::vector<std::string> &strings) {
    std::vector<const char *> out;
    for (const std::string &string : strings) out.push_back(string.c_str());
    return out;
}

// The handles of several objects.
template <class T, class Class>
std::vector<const T *> handles(const std::vector<const Class *> &objects) {
    std::vector<const T *> out;
    for (const Class *object : objects) out.push_back(object ? object->get() : nullptr);
    return out;
}

// A result or option struct with its size set and everything else zero.
template <class T>
T sized() {
    T value{};
    value.size = static_cast<uint32_t>(sizeof value);
    return value;
}

}  // namespace detail

inline std::string version() { return tiller_version(); }
inline bool has_engine() { return tiller_has_engine(); }

// Called now and then during long work; false cancels it. An exception also does, and comes out of the call.
using progress_fn = std::function<bool(uint64_t done, uint64_t total, const std::string &note)>;

namespace detail {

// Lends a progress function to C for the length of one call.
class progress {
public:
    explicit progress(const progress_fn &fn) : fn_(fn), c_{&progress::step, this} {}
    progress(const progress &) = delete;
    const tiller_progress *get() const noexcept { return fn_ ? &c_ : nullptr; }
    // Calls `f(err)`; an exception of the progress function goes before the cancellation that it caused.
    template <class F>
    void run(F &&f) {
        try {
            call(f);
        } catch (const error &) {
            if (thrown_) std::rethrow_exception(thrown_);
            throw;
        }
    }

private:
    static int step(void *user, uint64_t done, uint64_t total, const char *note) {
        auto *self = static_cast<progress *>(user);
        try {
            return self->fn_(done, total, note) ? 0 : 1;
        } catch (...) {
            self->thrown_ = std::current_exception();
            return 1;
        }
    }
    const progress_fn &fn_;
    tiller_progress c_;
    std::exception_ptr thrown_;
};

}  // namespace detail

// A GGUF file.
class gguf {
public:
    explicit gguf(const std::string &file)
        : c_(detail::make<tiller_gguf>([&](auto **out, auto **err) { return tiller_gguf_open(file.c_str(), out, err); })) {}
    std::vector<std::string> keys() const {
        std::vector<std::string> keys;
        for (size_t i = 0; i < tiller_gguf_n_keys(get()); i++) keys.emplace_back(tiller_gguf_key(get(), i));
        return keys;
    }
    // The value of a key as JSON.
    std::string value(const std::string &key) const {
        return detail::text([&](auto **out, auto **err) { return tiller_gguf_value(get(), key.c_str(), out, err); });
    }
    size_t n_tensors() const noexcept { return tiller_gguf_n_tensors(get()); }
    tiller_tensor tensor(size_t i) const {
        auto tensor = detail::sized<tiller_tensor>();
        detail::call([&](auto **err) { return tiller_gguf_tensor(get(), i, &tensor, err); });
        return tensor;
    }
    const tiller_gguf *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_gguf, tiller_gguf_free> c_;
};

// The active features of each of many rows.
class codes {
public:
    explicit codes(tiller_codes *handle) : c_(handle) {}
    size_t n_rows() const noexcept { return tiller_codes_n_rows(get()); }
    std::vector<tiller_code> row(size_t i) const {
        size_t n = 0;
        const tiller_code *first = tiller_codes_row(get(), i, &n);
        return std::vector<tiller_code>(first, first + n);
    }
    const tiller_codes *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_codes, tiller_codes_free> c_;
};

// A few features of a dictionary.
class slice {
public:
    explicit slice(tiller_slice *handle) : c_(handle) {}
    size_t size() const noexcept { return tiller_slice_length(get()); }
    bool is_exact() const noexcept { return tiller_slice_is_exact(get()); }
    std::vector<float> encode(const std::vector<float> &row) const {
        std::vector<float> out(size());
        detail::call([&](auto **err) {
            return tiller_slice_encode(get(), row.data(), row.size(), out.data(), out.size(), err);
        });
        return out;
    }
    void edit(const std::vector<float> &deltas, std::vector<float> &row) const {
        detail::call([&](auto **err) {
            return tiller_slice_edit(get(), deltas.data(), deltas.size(), row.data(), row.size(), err);
        });
    }
    const tiller_slice *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_slice, tiller_slice_free> c_;
};

// A dictionary of features.
class dictionary {
public:
    explicit dictionary(const std::string &file)
        : c_(detail::make<tiller_dictionary>(
              [&](auto **out, auto **err) { return tiller_dictionary_open(file.c_str(), out, err); })) {}
    // Of a known family ("saelens", "gemma_scope", ...; "" tells it by the contents), by way of converted copies in the
    // directory `cache` unless that is empty.
    dictionary(const std::string &file, const std::string &family, const std::string &cache = "")
        : c_(detail::make<tiller_dictionary>([&](auto **out, auto **err) {
              return tiller_dictionary_open_as(file.c_str(), family.empty() ? nullptr : family.c_str(),
                                               cache.empty() ? nullptr : cache.c_str(), out, err);
          })) {}
    // From weights in memory; sets the size of `parts`.
    explicit dictionary(tiller_dictionary_parts parts)
        : c_(detail::make<tiller_dictionary>([&](auto **out, auto **err) {
              parts.size = static_cast<uint32_t>(sizeof parts);
              return tiller_dictionary_new(&parts, out, err);
          })) {}
    explicit dictionary(tiller_dictionary *handle) : c_(handle) {}
    size_t n_features() const noexcept { return tiller_dictionary_n_features(get()); }
    size_t d_model() const noexcept { return tiller_dictionary_d_model(get()); }
    size_t d_out() const noexcept { return tiller_dictionary_d_out(get()); }
    // -1 if unknown.
    int32_t feature_layer(uint32_t feature) const noexcept { return tiller_dictionary_feature_layer(get(), feature); }
    // Its texts live as long as the dictionary.
    tiller_dictionary_info info() const {
        auto info = detail::sized<tiller_dictionary_info>();
        detail::call([&](auto **err) { return tiller_dictionary_get_info(get(), &info, err); });
        return info;
    }
    tiller_stats stats(uint32_t feature) const {
        tiller_stats stats{};
        detail::call([&](auto **err) { return tiller_dictionary_stats(get(), feature, &stats, err); });
        return stats;
    }
    std::vector<float> encode(const std::vector<float> &row) const {
        std::vector<float> out(n_features());
        detail::call([&](auto **err) {
            return tiller_dictionary_encode(get(), row.data(), row.size(), out.data(), out.size(), err);
        });
        return out;
    }
    tiller::codes encode_rows(const std::vector<float> &rows, uint32_t threads = 1) const {
        return tiller::codes(detail::make<tiller_codes>([&](auto **out, auto **err) {
            return tiller_dictionary_encode_rows(get(), rows.data(), rows.size(), threads, out, err);
        }));
    }
    std::vector<float> decode(const std::vector<tiller_code> &codes) const {
        std::vector<float> out(d_out());
        detail::call([&](auto **err) {
            return tiller_dictionary_decode(get(), codes.data(), codes.size(), out.data(), out.size(), err);
        });
        return out;
    }
    std::vector<float> encoder_row(uint32_t feature) const {
        std::vector<float> out(d_model());
        detail::call([&](auto **err) {
            return tiller_dictionary_encoder_row(get(), feature, out.data(), out.size(), err);
        });
        return out;
    }
    std::vector<float> decoder_row(uint32_t feature) const {
        std::vector<float> out(d_out());
        detail::call([&](auto **err) {
            return tiller_dictionary_decoder_row(get(), feature, out.data(), out.size(), err);
        });
        return out;
    }
    tiller::slice slice(const std::vector<uint32_t> &features) const {
        return tiller::slice(detail::make<tiller_slice>([&](auto **out, auto **err) {
            return tiller_dictionary_slice(get(), features.data(), features.size(), out, err);
        }));
    }
    // A dictionary of some of the features, in that order, renumbered from 0.
    dictionary select(const std::vector<uint32_t> &features) const {
        return dictionary(detail::make<tiller_dictionary>([&](auto **out, auto **err) {
            return tiller_dictionary_select(get(), features.data(), features.size(), out, err);
        }));
    }
    // `storage` is "F32", "F16", "BF16" or "Q8_0".
    void save(const std::string &file, const std::string &storage) const {
        detail::call([&](auto **err) { return tiller_dictionary_save(get(), file.c_str(), storage.c_str(), err); });
    }
    // The same, and what the storage costs.
    tiller_loss convert(const std::string &file, const std::string &storage) const {
        tiller_loss loss{};
        detail::call([&](auto **err) {
            return tiller_dictionary_convert(get(), file.c_str(), storage.c_str(), &loss, err);
        });
        return loss;
    }
    // Directories for other programs.
    void save_saelens(const std::string &directory) const {
        detail::call([&](auto **err) { return tiller_dictionary_save_saelens(get(), directory.c_str(), err); });
    }
    void save_sparsify(const std::string &directory) const {
        detail::call([&](auto **err) { return tiller_dictionary_save_sparsify(get(), directory.c_str(), err); });
    }
    const tiller_dictionary *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_dictionary, tiller_dictionary_free> c_;
};

// A language model's file, seen from outside.
class model {
public:
    explicit model(const std::string &file)
        : c_(detail::make<tiller_model>([&](auto **out, auto **err) { return tiller_model_open(file.c_str(), out, err); })) {}
    std::string architecture() const { return tiller_model_architecture(get()); }
    std::string name() const { return tiller_model_name(get()); }
    std::string quantization() const { return tiller_model_quantization(get()); }
    std::string fingerprint() const { return tiller_model_fingerprint(get()); }
    size_t n_layer() const noexcept { return tiller_model_n_layer(get()); }
    size_t d_model() const noexcept { return tiller_model_d_model(get()); }
    // What a plan for it is compiled against; its architecture is this object's.
    tiller_target target() const {
        auto found = detail::sized<tiller_target>();
        detail::call([&](auto **err) { return tiller_model_target(get(), &found, err); });
        return found;
    }
    size_t n_vocab() const noexcept { return tiller_model_n_vocab(get()); }
    size_t context_length() const noexcept { return tiller_model_context_length(get()); }
    bool tied_unembedding() const noexcept { return tiller_model_tied_unembedding(get()); }
    // -1 if there is none.
    int32_t bos() const noexcept { return tiller_model_bos(get()); }
    int32_t eos() const noexcept { return tiller_model_eos(get()); }
    bool add_bos() const noexcept { return tiller_model_add_bos(get()); }
    std::string token_text(int32_t token) const {
        return detail::text([&](auto **out, auto **err) { return tiller_model_token_text(get(), token, out, err); });
    }
    // May be a part of a character.
    std::string token_bytes(int32_t token) const {
        return detail::text([&](auto **out, auto **err) { return tiller_model_token_bytes(get(), token, out, err); });
    }
    struct norm_type {
        std::vector<float> weight;
        float epsilon;
    };
    norm_type output_norm() const {
        norm_type norm{std::vector<float>(d_model()), 0};
        detail::call([&](auto **err) {
            return tiller_model_output_norm(get(), norm.weight.data(), norm.weight.size(), &norm.epsilon, err);
        });
        return norm;
    }
    std::vector<float> unembedding_row(int32_t token) const {
        std::vector<float> row(d_model());
        detail::call(
            [&](auto **err) { return tiller_model_unembedding_row(get(), token, row.data(), row.size(), err); });
        return row;
    }
    // Throws if the dictionary does not belong to the model; gives a warning, which may be empty.
    std::string check(const tiller::dictionary &dictionary) const {
        return detail::text(
            [&](auto **out, auto **err) { return tiller_model_check(get(), dictionary.get(), out, err); });
    }
    const tiller_model *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_model, tiller_model_free> c_;
};

// Harvested rows.
class activations {
public:
    explicit activations(const std::string &directory)
        : c_(detail::make<tiller_activations>(
              [&](auto **out, auto **err) { return tiller_activations_open(directory.c_str(), out, err); })) {}
    size_t n_rows() const noexcept { return tiller_activations_n_rows(get()); }
    size_t d_model() const noexcept { return tiller_activations_d_model(get()); }
    size_t layer() const noexcept { return tiller_activations_layer(get()); }
    std::string model() const { return tiller_activations_model(get()); }
    std::string fingerprint() const { return tiller_activations_fingerprint(get()); }
    bool complete() const noexcept { return tiller_activations_complete(get()); }
    struct row_type {
        std::vector<float> values;
        int32_t token, position;
    };
    row_type row(size_t i) const {
        row_type row{std::vector<float>(d_model()), 0, 0};
        detail::call([&](auto **err) {
            return tiller_activations_row(
                get(), i, row.values.data(), row.values.size(), &row.token, &row.position, err);
        });
        return row;
    }
    const tiller_activations *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_activations, tiller_activations_free> c_;
};

// The words that explanations are made of.
class vocabulary {
public:
    explicit vocabulary(const std::string &file)
        : c_(detail::make<tiller_vocabulary>(
              [&](auto **out, auto **err) { return tiller_vocabulary_open(file.c_str(), out, err); })) {}
    vocabulary(const std::vector<std::string> &texts, size_t n_words)
        : c_(detail::make<tiller_vocabulary>([&](auto **out, auto **err) {
              return tiller_vocabulary_new(detail::pointers(texts).data(), texts.size(), n_words, out, err);
          })) {}
    // The most frequent words of harvested text.
    vocabulary(const std::vector<const activations *> &rows, const model &model, size_t n_words)
        : c_(detail::make<tiller_vocabulary>([&](auto **out, auto **err) {
              const auto list = detail::handles<tiller_activations>(rows);
              return tiller_vocabulary_harvested(list.data(), list.size(), model.get(), n_words, out, err);
          })) {}
    size_t size() const noexcept { return tiller_vocabulary_n_words(get()); }
    std::string word(size_t rank) const {
        return detail::text([&](auto **out, auto **err) { return tiller_vocabulary_word(get(), rank, out, err); });
    }
    void save(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_vocabulary_save(get(), file.c_str(), err); });
    }
    const tiller_vocabulary *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_vocabulary, tiller_vocabulary_free> c_;
};

// Encodes the rows in a file or a directory of harvested rows into a .npy (dense) or .safetensors (sparse) file.
inline tiller_encoded encode_file(
    const dictionary &dictionary,
    const std::string &rows,
    const std::string &file,
    uint32_t threads = 1,
    const std::string &name = "",
    const progress_fn &progress = nullptr
) {
    auto encoded = detail::sized<tiller_encoded>();
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        return tiller_dictionary_encode_file(
            dictionary.get(), rows.c_str(), name.empty() ? nullptr : name.c_str(), file.c_str(), threads, lent.get(),
            &encoded, err);
    });
    return encoded;
}

// Decodes the codes in a file to rows in a .npy file, and returns their number. `rows` are the encoded ones, or "".
inline uint64_t decode_file(
    const dictionary &dictionary, const std::string &codes, const std::string &file, const std::string &rows = ""
) {
    uint64_t n = 0;
    detail::call([&](auto **err) {
        return tiller_dictionary_decode_file(
            dictionary.get(), codes.c_str(), rows.empty() ? nullptr : rows.c_str(), file.c_str(), &n, err);
    });
    return n;
}

// Whether a dictionary fits rows of a model, and if not, what is most likely wrong.
class diagnosis {
public:
    // What would be right, and what it gives.
    struct alternative {
        std::string words;
        double l0, fvu;
    };

    explicit diagnosis(tiller_diagnosis *owned) : c_(owned) {}
    tiller_diagnosed get_figures() const {
        auto found = detail::sized<tiller_diagnosed>();
        detail::call([&](auto **err) { return tiller_diagnosis_get(get(), &found, err); });
        return found;
    }
    bool fits() const { return get_figures().fits != 0; }
    std::string verdict() const {
        return detail::text([&](auto **out, auto **err) { return tiller_diagnosis_verdict(get(), out, err); });
    }
    // Alternative `i`, the best one first.
    alternative tried(size_t i) const {
        alternative found{};
        found.words = detail::text([&](auto **out, auto **err) {
            return tiller_diagnosis_tried(get(), i, &found.l0, &found.fvu, out, err);
        });
        return found;
    }
    const tiller_diagnosis *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_diagnosis, tiller_diagnosis_free> c_;
};

// Tries a dictionary on rows of some hook points, its own among them, by name.
inline tiller::diagnosis diagnose(
    const dictionary &dictionary,
    const std::vector<std::pair<std::string, std::vector<float>>> &rows,
    uint32_t threads = 1,
    const progress_fn &progress = nullptr
) {
    std::vector<tiller_hook_rows> list;
    for (const auto &point : rows) list.push_back({point.first.c_str(), point.second.data(), point.second.size()});
    tiller_diagnosis *made = nullptr;
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        return tiller_dictionary_diagnose(dictionary.get(), list.data(), list.size(), threads, lent.get(), &made, err);
    });
    return tiller::diagnosis(made);
}

// Measures a dictionary on harvested rows.
inline tiller_quality measure(
    const dictionary &dictionary,
    const activations &rows,
    tiller_measure options = {},
    const progress_fn &progress = nullptr
) {
    options.size = static_cast<uint32_t>(sizeof options);
    auto quality = detail::sized<tiller_quality>();
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        return tiller_dictionary_measure(dictionary.get(), rows.get(), &options, lent.get(), &quality, err);
    });
    return quality;
}

// Trains a dictionary on harvested rows. `checkpoint` is a file from which a cancelled run goes on; "" for none.
inline dictionary train(
    const std::vector<const activations *> &rows,
    tiller_train_options options = {},
    const std::string &checkpoint = "",
    const progress_fn &progress = nullptr
) {
    options.size = static_cast<uint32_t>(sizeof options);
    const auto list = detail::handles<tiller_activations>(rows);
    tiller_dictionary *made = nullptr;
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        const char *file = checkpoint.empty() ? nullptr : checkpoint.c_str();
        return tiller_train(list.data(), list.size(), &options, file, lent.get(), &made, err);
    });
    return dictionary(made);
}

// Which latent drives which, in the same row and in later ones.
class temporal {
public:
    explicit temporal(const std::string &file)
        : c_(detail::make<tiller_temporal>(
              [&](auto **out, auto **err) { return tiller_temporal_open(file.c_str(), out, err); })) {}
    explicit temporal(tiller_temporal *handle) : c_(handle) {}
    size_t n_latents() const noexcept { return tiller_temporal_n_latents(get()); }
    size_t lags() const noexcept { return tiller_temporal_lags(get()); }
    size_t d_model() const noexcept { return tiller_temporal_d_model(get()); }
    std::vector<uint32_t> features() const {
        std::vector<uint32_t> all(n_latents());
        detail::call([&](auto **err) { return tiller_temporal_features(get(), all.data(), all.size(), err); });
        return all;
    }
    // Causes first.
    std::vector<uint32_t> order() const {
        std::vector<uint32_t> all(n_latents());
        detail::call([&](auto **err) { return tiller_temporal_order(get(), all.data(), all.size(), err); });
        return all;
    }
    // Row by row: how much of latent j, `lag` rows before, is in latent i. Lag 0 is M.
    std::vector<float> weights(uint32_t lag) const {
        std::vector<float> all(n_latents() * n_latents());
        detail::call([&](auto **err) { return tiller_temporal_weights(get(), lag, all.data(), all.size(), err); });
        return all;
    }
    std::vector<float> deviation() const {
        std::vector<float> all(n_latents());
        detail::call([&](auto **err) { return tiller_temporal_deviation(get(), all.data(), all.size(), err); });
        return all;
    }
    // What follows an edit of a latent by 1: the row itself, then the rows after, n_latents() each.
    std::vector<float> response(uint32_t latent, uint32_t steps) const {
        std::vector<float> all((size_t{steps} + 1) * n_latents());
        detail::call([&](auto **err) {
            return tiller_temporal_response(get(), latent, steps, all.data(), all.size(), err);
        });
        return all;
    }
    // Alone, or with what the latent drives in the same row.
    std::vector<float> direction(uint32_t latent, bool propagate) const {
        std::vector<float> all(d_model());
        detail::call([&](auto **err) {
            return tiller_temporal_direction(get(), latent, propagate, all.data(), all.size(), err);
        });
        return all;
    }
    // `on` is the dictionary of the model, or nullptr for a model of rows.
    tiller_forecast forecast(
        const activations &rows,
        const dictionary *on = nullptr,
        uint32_t hold_out = 0,
        const progress_fn &progress = nullptr
    ) const {
        tiller_forecast found = {};
        found.size = static_cast<uint32_t>(sizeof found);
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_temporal_forecast(
                get(), rows.get(), on ? on->get() : nullptr, hold_out, lent.get(), &found, err);
        });
        return found;
    }
    void save(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_temporal_save(get(), file.c_str(), err); });
    }
    const tiller_temporal *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_temporal, tiller_temporal_free> c_;
};

// Estimates a temporal model of the features of `on`, or, if that is nullptr, of latents of the rows. `checkpoint` is a file
// from which a cancelled joint estimate goes on; "" for none.
inline temporal train_temporal(
    const activations &rows,
    const dictionary *on = nullptr,
    tiller_temporal_options options = {},
    const std::string &checkpoint = "",
    const progress_fn &progress = nullptr
) {
    options.size = static_cast<uint32_t>(sizeof options);
    tiller_temporal *made = nullptr;
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        const char *file = checkpoint.empty() ? nullptr : checkpoint.c_str();
        return tiller_temporal_train(rows.get(), on ? on->get() : nullptr, &options, file, lent.get(), &made, err);
    });
    return temporal(made);
}

// Trains a dictionary by a recipe: all settings as JSON. `metrics` is a file to which every step adds a line; "" for none.
inline dictionary train_recipe(
    const std::vector<const activations *> &rows,
    const std::string &recipe,
    uint32_t threads = 0,
    const std::string &checkpoint = "",
    const std::string &metrics = "",
    const progress_fn &progress = nullptr
) {
    const auto list = detail::handles<tiller_activations>(rows);
    tiller_dictionary *made = nullptr;
    detail::progress lent(progress);
    const auto file = [](const std::string &path) { return path.empty() ? nullptr : path.c_str(); };
    lent.run([&](tiller_error **err) {
        return tiller_train_recipe(
            list.data(), list.size(), recipe.c_str(), threads, file(checkpoint), file(metrics), lent.get(), &made, err);
    });
    return dictionary(made);
}

// Trains a dictionary for each recipe in one pass over the rows; `checkpoints` is empty, or as many files.
inline std::vector<dictionary> train_many(
    const std::vector<const activations *> &rows,
    const std::vector<std::string> &recipes,
    uint32_t threads = 0,
    const std::vector<std::string> &checkpoints = {},
    const progress_fn &progress = nullptr
) {
    if (!checkpoints.empty() && checkpoints.size() != recipes.size())
        throw std::invalid_argument("train_many: expected as many checkpoints as recipes, or none");
    const auto list = detail::handles<tiller_activations>(rows);
    const auto texts = detail::pointers(recipes), files = detail::pointers(checkpoints);
    std::vector<tiller_dictionary *> made(recipes.size(), nullptr);
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        return tiller_train_many(
            list.data(), list.size(), texts.data(), texts.size(), threads, files.empty() ? nullptr : files.data(),
            lent.get(), made.data(), err);
    });
    std::vector<dictionary> out;
    for (tiller_dictionary *one : made) out.push_back(dictionary(one));
    return out;
}

// Features that a search found, best first.
class matches {
public:
    explicit matches(tiller_matches *handle) : c_(handle) {}
    size_t size() const noexcept { return tiller_matches_length(get()); }
    // Its texts live as long as the matches.
    tiller_match operator[](size_t i) const {
        auto match = detail::sized<tiller_match>();
        detail::call([&](auto **err) { return tiller_matches_get(get(), i, &match, err); });
        return match;
    }
    const tiller_matches *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_matches, tiller_matches_free> c_;
};

// What features mean, in words.
class explanations {
public:
    explicit explanations(const std::string &file)
        : c_(detail::make<tiller_explanations>(
              [&](auto **out, auto **err) { return tiller_explanations_open(file.c_str(), out, err); })) {}
    explicit explanations(tiller_explanations *handle) : c_(handle) {}
    size_t size() const noexcept { return tiller_explanations_length(get()); }
    uint32_t feature(size_t i) const noexcept { return tiller_explanations_feature(get(), i); }
    std::string words(uint32_t feature, size_t n_words) const {
        return detail::text(
            [&](auto **out, auto **err) { return tiller_explanations_words(get(), feature, n_words, out, err); });
    }
    std::string json(uint32_t feature) const {
        return detail::text([&](auto **out, auto **err) { return tiller_explanations_json(get(), feature, out, err); });
    }
    tiller::matches find(const std::vector<std::string> &words, size_t n_features, tiller_find options = {}) const {
        options.size = static_cast<uint32_t>(sizeof options);
        return tiller::matches(detail::make<tiller_matches>([&](auto **out, auto **err) {
            return tiller_explanations_find(
                get(), detail::pointers(words).data(), words.size(), n_features, &options, out, err);
        }));
    }
    tiller::matches find_label(const std::string &label, size_t n_features) const {
        return tiller::matches(detail::make<tiller_matches>([&](auto **out, auto **err) {
            return tiller_explanations_find_label(get(), label.c_str(), n_features, out, err);
        }));
    }
    std::string unknown_words(const std::vector<std::string> &words) const {
        return detail::text([&](auto **out, auto **err) {
            return tiller_explanations_unknown_words(get(), detail::pointers(words).data(), words.size(), out, err);
        });
    }
    void set_label(uint32_t feature, const std::string &label) {
        detail::call([&](auto **err) { return tiller_explanations_set_label(c_.get(), feature, label.c_str(), err); });
    }
    void clear_label(uint32_t feature) {
        detail::call([&](auto **err) { return tiller_explanations_set_label(c_.get(), feature, nullptr, err); });
    }
    void save_labels(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_explanations_save_labels(get(), file.c_str(), err); });
    }
    size_t load_labels(const std::string &file) {
        size_t n = 0;
        detail::call([&](auto **err) { return tiller_explanations_load_labels(c_.get(), file.c_str(), &n, err); });
        return n;
    }
    void save(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_explanations_save(get(), file.c_str(), err); });
    }
    const tiller_explanations *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_explanations, tiller_explanations_free> c_;
};

// Explains features by counting them and words in harvested text.
inline explanations explain(
    const std::vector<const activations *> &rows,
    const model &model,
    const dictionary &dictionary,
    const vocabulary &vocabulary,
    tiller_explain options = {},
    const progress_fn &progress = nullptr
) {
    options.size = static_cast<uint32_t>(sizeof options);
    const auto list = detail::handles<tiller_activations>(rows);
    tiller_explanations *made = nullptr;
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        return tiller_explain_data(
            list.data(), list.size(), model.get(), dictionary.get(), vocabulary.get(), &options, lent.get(), &made, err);
    });
    return explanations(made);
}

namespace detail {
inline std::vector<tiller_named> named(const std::vector<std::pair<std::string, const dictionary *>> &dictionaries) {
    std::vector<tiller_named> named;
    for (const auto &[name, dictionary] : dictionaries) {
        named.push_back({name.c_str(), dictionary ? dictionary->get() : nullptr});
    }
    return named;
}
} // namespace detail

// The baseline: explains features by the words of the `n_spans` pieces of text on which each fires most; 0 means 20.
// `spans`, unless NULL, receives those, a line of JSON each.
inline explanations explain_spans(
    const std::vector<const activations *> &rows,
    const model &model,
    const dictionary &dictionary,
    const vocabulary &vocabulary,
    uint32_t n_spans = 0,
    uint32_t threads = 0,
    std::string *spans = nullptr,
    const progress_fn &progress = nullptr
) {
    const auto list = detail::handles<tiller_activations>(rows);
    tiller_explanations *made = nullptr;
    tiller_text *text = nullptr;
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        return tiller_explain_spans(
            list.data(), list.size(), model.get(), dictionary.get(), vocabulary.get(), n_spans, threads, lent.get(),
            spans ? &text : nullptr, &made, err);
    });
    const detail::owned<tiller_text, tiller_text_free> held(text);
    if (spans) spans->assign(tiller_text_data(text), tiller_text_length(text));
    return explanations(made);
}

// A plan resolved against its dictionaries and a model's sizes.
class compiled {
public:
    explicit compiled(tiller_compiled *handle) : c_(handle) {}
    std::string fingerprint() const { return tiller_compiled_fingerprint(get()); }
    // What a reader of the plan should know, a line each.
    std::string warnings() const { return tiller_compiled_warnings(get()); }
    bool needs_callback() const noexcept { return tiller_compiled_needs_callback(get()); }
    void check(size_t n_layer, size_t d_model) const {
        detail::call([&](auto **err) { return tiller_compiled_check(get(), n_layer, d_model, err); });
    }
    // What llama_set_adapter_cvec() takes; empty if there is nothing for it.
    std::vector<float> control_vector() const {
        std::vector<float> data(tiller_compiled_control_vector_length(get()));
        detail::call(
            [&](auto **err) { return tiller_compiled_control_vector(get(), data.data(), data.size(), err); });
        return data;
    }
    // Edits rows in place, without a model; gives how many were changed.
    uint64_t apply(tiller_point point, std::vector<float> &data, const std::vector<tiller_row> &rows) const {
        uint64_t n = 0;
        detail::call([&](auto **err) {
            return tiller_compiled_apply(get(), point, data.data(), data.size(), rows.data(), rows.size(), &n, err);
        });
        return n;
    }
    const tiller_compiled *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_compiled, tiller_compiled_free> c_;
};

// What to do to the residual stream.
class plan {
public:
    // Reads a file.
    explicit plan(const std::string &file)
        : c_(detail::make<tiller_plan>([&](auto **out, auto **err) { return tiller_plan_open(file.c_str(), out, err); })) {}
    // Reads JSON text.
    static plan parse(const std::string &json) {
        return plan(detail::make<tiller_plan>(
            [&](auto **out, auto **err) { return tiller_plan_parse(json.c_str(), out, err); }));
    }
    // One rule on the features that a search found. `unit`: 0 raw, 1 mean activation, 2 norm of the row.
    plan(const tiller::matches &matches, const std::string &op, float strength, uint32_t unit, const char *dictionary = nullptr)
        : c_(detail::make<tiller_plan>([&](auto **out, auto **err) {
              return tiller_plan_for(matches.get(), op.c_str(), strength, unit, dictionary, out, err);
          })) {}
    size_t n_rules() const noexcept { return tiller_plan_n_rules(get()); }
    std::string json() const {
        return detail::text([&](auto **out, auto **err) { return tiller_plan_json(get(), out, err); });
    }
    void save(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_plan_save(get(), file.c_str(), err); });
    }
    // A copy with every strength multiplied by `factor`.
    plan scaled(float factor) const {
        return plan(detail::make<tiller_plan>(
            [&](auto **out, auto **err) { return tiller_plan_scaled(get(), factor, out, err); }));
    }
    // `route`: 0 automatic, 1 callback, 2 control vector.
    tiller::compiled compile(
        const std::vector<std::pair<std::string, const dictionary *>> &dictionaries,
        tiller_target target,
        uint32_t route = 0
    ) const {
        const auto named = detail::named(dictionaries);
        target.size = static_cast<uint32_t>(sizeof target);
        return tiller::compiled(detail::make<tiller_compiled>([&](auto **out, auto **err) {
            return tiller_plan_compile(get(), named.data(), named.size(), &target, route, out, err);
        }));
    }
    const tiller_plan *get() const noexcept { return c_.get(); }

private:
    explicit plan(tiller_plan *handle) : c_(handle) {}
    detail::owned<tiller_plan, tiller_plan_free> c_;
};

// A constant direction a layer.
class control_vector {
public:
    explicit control_vector(const std::string &file)
        : c_(detail::make<tiller_control_vector>(
              [&](auto **out, auto **err) { return tiller_control_vector_open(file.c_str(), out, err); })) {}
    explicit control_vector(size_t d_model)
        : c_(detail::make<tiller_control_vector>(
              [&](auto **out, auto **err) { return tiller_control_vector_new(d_model, out, err); })) {}
    size_t d_model() const noexcept { return tiller_control_vector_d_model(get()); }
    void add(uint32_t layer, const std::vector<float> &direction) {
        detail::call([&](auto **err) {
            return tiller_control_vector_add(c_.get(), layer, direction.data(), direction.size(), err);
        });
    }
    std::vector<float> data(size_t n_layer) const {
        std::vector<float> data(n_layer > 0 ? (n_layer - 1) * d_model() : 0);
        detail::call([&](auto **err) {
            return tiller_control_vector_data(get(), n_layer, data.data(), data.size(), err);
        });
        return data;
    }
    void save(const std::string &file, const std::string &model_hint) const {
        detail::call([&](auto **err) {
            return tiller_control_vector_save(get(), file.c_str(), model_hint.c_str(), err);
        });
    }
    const tiller_control_vector *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_control_vector, tiller_control_vector_free> c_;
};

// A coder whose codes are dense: ConCA or SSAE.
class coder {
public:
    explicit coder(const std::string &file)
        : c_(detail::make<tiller_coder>([&](auto **out, auto **err) { return tiller_coder_open(file.c_str(), out, err); })) {}
    // On rows of width d_model one after another. A checkpoint is a file from which a cancelled run goes on; "" for none.
    static coder train(
        const std::vector<float> &rows, size_t d_model, tiller_coder_options options,
        const std::string &checkpoint = {}, const progress_fn &progress = nullptr
    ) {
        return made(options, checkpoint, progress, [&](const char *file, auto *lent, auto **out, auto **err) {
            return tiller_coder_train_rows(rows.data(), rows.size(), d_model, &options, file, lent, out, err);
        });
    }
    // On harvested rows.
    static coder train(
        const std::vector<const activations *> &rows, tiller_coder_options options, const std::string &checkpoint = {},
        const progress_fn &progress = nullptr
    ) {
        const auto handles = detail::handles<tiller_activations>(rows);
        return made(options, checkpoint, progress, [&](const char *file, auto *lent, auto **out, auto **err) {
            return tiller_coder_train(handles.data(), handles.size(), &options, file, lent, out, err);
        });
    }
    void save(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_coder_save(get(), file.c_str(), err); });
    }
    size_t d_model() const noexcept { return tiller_coder_d_model(get()); }
    size_t n_latents() const noexcept { return tiller_coder_n_latents(get()); }
    // Whole rows of d_model become as many rows of n_latents.
    std::vector<float> encode(const std::vector<float> &rows, uint32_t threads = 0) const {
        std::vector<float> codes(rows.size() / d_model() * n_latents());
        detail::call([&](auto **err) {
            return tiller_coder_encode(get(), rows.data(), rows.size(), threads, codes.data(), codes.size(), err);
        });
        return codes;
    }
    std::vector<float> decode(const std::vector<float> &codes, uint32_t threads = 0) const {
        std::vector<float> rows(codes.size() / n_latents() * d_model());
        detail::call([&](auto **err) {
            return tiller_coder_decode(get(), codes.data(), codes.size(), threads, rows.data(), rows.size(), err);
        });
        return rows;
    }
    // The direction of a code.
    std::vector<float> decoder_row(size_t latent) const {
        std::vector<float> row(d_model());
        detail::call([&](auto **err) { return tiller_coder_decoder_row(get(), latent, row.data(), row.size(), err); });
        return row;
    }
    // A dictionary with the same decoder, for plans.
    tiller::dictionary dictionary() const {
        return tiller::dictionary(
            detail::make<tiller_dictionary>([&](auto **out, auto **err) { return tiller_coder_dictionary(get(), out, err); })
        );
    }
    const tiller_coder *get() const noexcept { return c_.get(); }

private:
    explicit coder(tiller_coder *handle) : c_(handle) {}
    template <class F>
    static coder made(tiller_coder_options &options, const std::string &checkpoint, const progress_fn &progress, F &&f) {
        options.size = static_cast<uint32_t>(sizeof options);
        tiller_coder *made = nullptr;
        detail::progress lent(progress);
        const char *file = checkpoint.empty() ? nullptr : checkpoint.c_str();
        lent.run([&](auto **err) { return f(file, lent.get(), &made, err); });
        return coder(made);
    }
    detail::owned<tiller_coder, tiller_coder_free> c_;
};

// Concepts, as relations between words: the rows of words without and with each, and a regression's log-odds for them.
class concepts {
public:
    explicit concepts(size_t d_model)
        : c_(detail::make<tiller_concepts>([&](auto **out, auto **err) { return tiller_concepts_new(d_model, out, err); })) {}
    explicit concepts(tiller_concepts *owned) : c_(owned) {}
    // Whole rows of d_model, one a word, and for each word whether it has the concept.
    void add(const std::string &name, const std::vector<float> &rows, const std::vector<uint8_t> &labels) {
        detail::call([&](auto **err) {
            return tiller_concepts_add(
                c_.get(), name.c_str(), rows.data(), rows.size(), labels.data(), labels.size(), err);
        });
    }
    size_t size() const noexcept { return tiller_concepts_length(get()); }
    const tiller_concepts *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_concepts, tiller_concepts_free> c_;
};

// How well single features say what concepts are.
class mpc {
public:
    // A concept, and the feature that it was matched with.
    struct match {
        std::string name;
        uint32_t feature;
        double correlation;
    };

    explicit mpc(const dictionary &dictionary, const concepts &concepts, uint32_t threads = 1, const progress_fn &progress = nullptr)
        : c_(made(progress, [&](auto *lent, auto **out, auto **err) {
              return tiller_dictionary_mpc(dictionary.get(), concepts.get(), threads, lent, out, err);
          })) {}
    explicit mpc(const coder &coder, const concepts &concepts, uint32_t threads = 0, const progress_fn &progress = nullptr)
        : c_(made(progress, [&](auto *lent, auto **out, auto **err) {
              return tiller_coder_mpc(coder.get(), concepts.get(), threads, lent, out, err);
          })) {}
    tiller_mpc_figures figures() const {
        auto found = detail::sized<tiller_mpc_figures>();
        detail::call([&](auto **err) { return tiller_mpc_get(get(), &found, err); });
        return found;
    }
    match operator[](size_t i) const {
        match found{};
        found.name = detail::text([&](auto **out, auto **err) {
            return tiller_mpc_match(get(), i, &found.feature, &found.correlation, out, err);
        });
        return found;
    }
    const tiller_mpc *get() const noexcept { return c_.get(); }

private:
    template <class F>
    static tiller_mpc *made(const progress_fn &progress, F &&f) {
        tiller_mpc *made = nullptr;
        detail::progress lent(progress);
        lent.run([&](auto **err) { return f(lent.get(), &made, err); });
        return made;
    }
    detail::owned<tiller_mpc, tiller_mpc_free> c_;
};

// A direction between two kinds of rows, for control_vector::add().
struct direction {
    std::vector<float> values;
    tiller_direction_report report;
    // Methods: 0 difference of means, 1 mean of paired differences, 2 principal axis, 3 principal axis around the mean.
    direction(
        const std::vector<float> &positive, const std::vector<float> &negative, size_t d_model, uint32_t method,
        uint32_t threads = 1
    )
        : values(d_model), report(detail::sized<tiller_direction_report>()) {
        detail::call([&](auto **err) {
            return tiller_direction(
                positive.data(), positive.size(), negative.data(), negative.size(), d_model, method, threads,
                values.data(), values.size(), &report, err
            );
        });
    }
};

// A logistic regression on rows.
class probe {
public:
    explicit probe(const std::string &file)
        : c_(detail::make<tiller_probe>([&](auto **out, auto **err) { return tiller_probe_open(file.c_str(), out, err); })) {}
    probe(
        const std::vector<float> &rows, size_t d_model, const std::vector<uint8_t> &labels,
        tiller_probe_options options = {}, const progress_fn &progress = nullptr
    ) {
        options.size = static_cast<uint32_t>(sizeof options);
        tiller_probe *made = nullptr;
        detail::progress lent(progress);
        lent.run([&](auto **err) {
            return tiller_probe_fit(
                rows.data(), rows.size(), d_model, labels.data(), labels.size(), &options, lent.get(), &made, err
            );
        });
        c_.reset(made);
    }
    void save(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_probe_save(get(), file.c_str(), err); });
    }
    size_t d_model() const noexcept { return tiller_probe_d_model(get()); }
    float bias() const noexcept { return tiller_probe_bias(get()); }
    std::vector<float> weights() const {
        std::vector<float> weights(d_model());
        detail::call([&](auto **err) { return tiller_probe_weights(get(), weights.data(), weights.size(), err); });
        return weights;
    }
    const tiller_probe *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_probe, tiller_probe_free> c_;
};

// Rows of one layer, copied out of the graph.
class captured {
public:
    explicit captured(tiller_captured *handle) : c_(handle) {}
    size_t n_rows() const noexcept { return tiller_captured_n_rows(get()); }
    size_t d_model() const noexcept { return tiller_captured_d_model(get()); }
    std::vector<float> data() const {
        const float *first = tiller_captured_data(get());
        return std::vector<float>(first, first + n_rows() * d_model());
    }
    std::vector<tiller_row> tokens() const {
        const tiller_row *first = tiller_captured_tokens(get());
        return std::vector<tiller_row>(first, first + n_rows());
    }
    const tiller_captured *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_captured, tiller_captured_free> c_;
};

// The sequences that a token belongs to, ascending; none where they are not known.
inline std::vector<int32_t> sequences(const tiller_row &row) {
    std::vector<int32_t> out;
    for (int32_t id = 0; row.sequence >= 0 && id < 256; id++) {
        if (id == row.sequence || (row.shared[id / 64] >> (id % 64) & 1)) out.push_back(id);
    }
    return out;
}

// Has a token belong to these sequences: ids from 0 to 255. None says that they are not known.
inline void set_sequences(tiller_row &row, const std::vector<int32_t> &ids) {
    row.sequence = ids.empty() ? -1 : ids[0];
    for (uint64_t &word : row.shared) word = 0;
    for (const int32_t id : ids) {
        if (id < 0 || id > 255) {
            throw error(TILLER_E_ARGUMENT, "sequence " + std::to_string(id) + ": expected 0 to 255", "");
        }
        if (id < row.sequence) row.sequence = id;
        row.shared[id / 64] |= uint64_t{1} << (id % 64);
    }
    if (row.sequence >= 0) row.shared[row.sequence / 64] &= ~(uint64_t{1} << (row.sequence % 64));
}

// Something that went wrong in a graph, and how often: rows where it is about rows, else graphs.
struct fault {
    error what;
    uint64_t count;
};

// What a hook saw and did, with what each rule of the plan did and everything that went wrong.
class ledger {
public:
    explicit ledger(tiller_ledger *handle) : c_(handle) {}
    tiller_report report() const {
        auto report = detail::sized<tiller_report>();
        detail::call([&](auto **err) { return tiller_ledger_report(get(), &report, err); });
        return report;
    }
    // Of the plan's rules up to the last that did something.
    std::vector<tiller_rule_report> rules() const {
        std::vector<tiller_rule_report> out(tiller_ledger_n_rules(get()), detail::sized<tiller_rule_report>());
        for (size_t i = 0; i < out.size(); i++) {
            detail::call([&](auto **err) { return tiller_ledger_rule(get(), i, &out[i], err); });
        }
        return out;
    }
    std::vector<fault> faults() const {
        std::vector<fault> out;
        for (size_t i = 0; i < tiller_ledger_n_faults(get()); i++) {
            auto found = detail::sized<tiller_fault>();
            detail::call([&](auto **err) { return tiller_ledger_fault(get(), i, &found, err); });
            out.push_back({error(found.status, found.what, ""), found.count});
        }
        return out;
    }
    const tiller_ledger *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_ledger, tiller_ledger_free> c_;
};

// What a plan's monitors read, and the verdicts that followed. Names and texts live as long as it.
class watched {
public:
    explicit watched(tiller_watched *handle) : c_(handle) {}
    std::vector<tiller_reading> readings() const {
        std::vector<tiller_reading> out(tiller_watched_n_readings(get()), detail::sized<tiller_reading>());
        for (size_t i = 0; i < out.size(); i++) {
            detail::call([&](auto **err) { return tiller_watched_reading(get(), i, &out[i], err); });
        }
        return out;
    }
    std::vector<tiller_verdict> verdicts() const {
        std::vector<tiller_verdict> out(tiller_watched_n_verdicts(get()), detail::sized<tiller_verdict>());
        for (size_t i = 0; i < out.size(); i++) {
            detail::call([&](auto **err) { return tiller_watched_verdict(get(), i, &out[i], err); });
        }
        return out;
    }
    // Readings and verdicts that were not kept, because nobody asked in time.
    uint64_t lost() const noexcept { return tiller_watched_lost(get()); }
    const tiller_watched *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_watched, tiller_watched_free> c_;
};

// A plan with monitors, and the features beside it.
class guard {
public:
    explicit guard(const std::string &file)
        : c_(detail::make<tiller_guard>([&](auto **out, auto **err) { return tiller_guard_open(file.c_str(), out, err); })) {}
    explicit guard(tiller_guard *handle) : c_(handle) {}
    void save(const std::string &file) const {
        detail::call([&](auto **err) { return tiller_guard_save(get(), file.c_str(), err); });
    }
    // Throws unless it was learned from this model, or another quantization of it.
    void check_model(const model &model) const {
        detail::call([&](auto **err) { return tiller_guard_check_model(get(), model.get(), err); });
    }
    tiller::compiled compile(tiller_target target) const {
        target.size = static_cast<uint32_t>(sizeof target);
        return tiller::compiled(detail::make<tiller_compiled>(
            [&](auto **out, auto **err) { return tiller_guard_compile(get(), &target, out, err); }));
    }
    const tiller_guard *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_guard, tiller_guard_free> c_;
};

// How a hook sees your ggml, without its headers. `lookup` gives the function of a name, or NULL, and must not throw;
// dlsym() is one, with the handle of a library as `user`.
inline tiller_ggml probe_ggml(tiller_lookup_fn lookup, void *user) {
    auto ggml = detail::sized<tiller_ggml>();
    detail::call([&](auto **err) { return tiller_ggml_probe(lookup, user, &ggml, err); });
    return ggml;
}

// Reads and edits the residual stream while your llama.cpp computes. Must outlive the llama context that calls it. Any thread
// may call set_plan() and check_plan() at any time.
class hook {
public:
    explicit hook(const tiller_ggml &ggml)
        : c_(detail::make<tiller_hook>([&](auto **out, auto **err) { return tiller_hook_new(&ggml, out, err); })) {}
    void set_plan(const compiled *plan) {
        detail::call([&](auto **err) { return tiller_hook_set_plan(get(), plan ? plan->get() : nullptr, err); });
    }
    // Whether set_plan() would take it.
    void check_plan(const compiled *plan) const {
        detail::call([&](auto **err) { return tiller_hook_check_plan(get(), plan ? plan->get() : nullptr, err); });
    }
    bool has_control_vector() const noexcept { return tiller_hook_has_control_vector(c_.get()); }
    // What the next llama_decode() holds; no rows take the last announcement back.
    void announce(const std::vector<tiller_row> &rows) {
        detail::call([&](auto **err) { return tiller_hook_announce(get(), rows.data(), rows.size(), err); });
    }
    // `general.architecture` of the model, for hook points other than the residual stream after a block.
    void set_architecture(const std::string &architecture) {
        detail::call([&](auto **err) { return tiller_hook_set_architecture(get(), architecture.c_str(), err); });
    }
    // `n_seq_max` of the context's parameters.
    void set_sequences(uint32_t n_sequences) {
        detail::call([&](auto **err) { return tiller_hook_set_sequences(get(), n_sequences, err); });
    }
    // Belongs to the next context whose graph it sees.
    void rebind() {
        detail::call([&](auto **err) { return tiller_hook_rebind(get(), err); });
    }
    // Closes the sequence gates of a sequence.
    void forget_sequence(int32_t sequence) {
        detail::call([&](auto **err) { return tiller_hook_forget_sequence(get(), sequence, err); });
    }
    void capture(const std::vector<tiller_point> &points) {
        detail::call([&](auto **err) { return tiller_hook_capture(get(), points.data(), points.size(), err); });
    }
    tiller::captured take(tiller_point point) {
        return tiller::captured(detail::make<tiller_captured>(
            [&](auto **out, auto **err) { return tiller_hook_captured(get(), point, out, err); }));
    }
    // `patch` edits rows at a point after the plan, and must not throw; NULL takes it away.
    void patch(tiller_point point, tiller_patch_fn patch, void *user) {
        detail::call([&](auto **err) { return tiller_hook_patch(get(), point, patch, user, err); });
    }
    void stop_after(int32_t layer) {
        detail::call([&](auto **err) { return tiller_hook_stop_after(get(), layer, err); });
    }
    // The counts since the last call; throws the first fault. ledger() has both.
    tiller_report finish() {
        auto report = detail::sized<tiller_report>();
        detail::call([&](auto **err) { return tiller_hook_finish(get(), &report, err); });
        return report;
    }
    tiller::ledger ledger() {
        return tiller::ledger(
            detail::make<tiller_ledger>([&](auto **out, auto **err) { return tiller_hook_ledger(get(), out, err); }));
    }
    // What the plan's monitors read since the last call, and the verdicts that followed.
    tiller::watched watched() {
        return tiller::watched(
            detail::make<tiller_watched>([&](auto **out, auto **err) { return tiller_hook_watched(get(), out, err); }));
    }
    // For cb_eval, with get() as its user data. It never throws.
    static bool eval(struct ggml_tensor *tensor, bool ask, void *hook) { return tiller_hook_eval(tensor, ask, hook); }
    tiller_hook *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_hook, tiller_hook_free> c_;
};

#ifdef TILLER_ENGINE

// A generated text.
class generation {
public:
    explicit generation(tiller_generation *handle) : c_(handle) {}
    std::string text() const { return tiller_generation_text(get()); }
    std::vector<int32_t> tokens() const {
        const int32_t *first = tiller_generation_tokens(get());
        return std::vector<int32_t>(first, first + tiller_generation_n_tokens(get()));
    }
    size_t n_prompt() const noexcept { return tiller_generation_n_prompt(get()); }
    uint32_t stop() const noexcept { return tiller_generation_stop(get()); }
    tiller_generation *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_generation, tiller_generation_free> c_;
};

// A model that this library runs.
class engine {
public:
    explicit engine(const std::string &file, tiller_engine_options options = {})
        : c_(detail::make<tiller_engine>([&](auto **out, auto **err) {
              options.size = static_cast<uint32_t>(sizeof options);
              return tiller_engine_open(file.c_str(), &options, out, err);
          })) {}
    size_t n_layer() const noexcept { return tiller_engine_n_layer(get()); }
    size_t d_model() const noexcept { return tiller_engine_d_model(get()); }
    // What a plan for it is compiled against; its architecture is this object's.
    tiller_target target() const {
        auto found = detail::sized<tiller_target>();
        detail::call([&](auto **err) { return tiller_engine_target(get(), &found, err); });
        return found;
    }
    size_t n_vocab() const noexcept { return tiller_engine_n_vocab(get()); }
    std::vector<int32_t> tokenize(const std::string &text, bool special = true) const {
        std::vector<int32_t> tokens(text.size() + 2);
        size_t n = 0;
        detail::call([&](auto **err) {
            return tiller_engine_tokenize(get(), text.c_str(), special, tokens.data(), tokens.size(), &n, err);
        });
        tokens.resize(n);
        return tokens;
    }
    std::string detokenize(const std::vector<int32_t> &tokens) const {
        return detail::text([&](auto **out, auto **err) {
            return tiller_engine_detokenize(get(), tokens.data(), tokens.size(), out, err);
        });
    }
    // Turns are {role, content}.
    std::string chat(const std::vector<std::pair<std::string, std::string>> &turns, bool answer = true) const {
        std::vector<tiller_message> messages;
        for (const auto &[role, content] : turns) messages.push_back({role.c_str(), content.c_str()});
        return detail::text([&](auto **out, auto **err) {
            return tiller_engine_chat(get(), messages.data(), messages.size(), answer, out, err);
        });
    }
    void set_plan(const compiled *plan) {
        detail::call([&](auto **err) { return tiller_engine_set_plan(get(), plan ? plan->get() : nullptr, err); });
    }
    // The counts since the last call; throws the first fault. ledger() has both.
    tiller_report finish() {
        auto report = detail::sized<tiller_report>();
        detail::call([&](auto **err) { return tiller_engine_finish(get(), &report, err); });
        return report;
    }
    tiller::ledger ledger() {
        return tiller::ledger(
            detail::make<tiller_ledger>([&](auto **out, auto **err) { return tiller_engine_ledger(get(), out, err); }));
    }
    // Has the threads sleep at once, for programs that compute with something else in between.
    void rest() {
        detail::call([&](auto **err) { return tiller_engine_rest(get(), err); });
    }
    // `stream` gets each piece of text; false ends the generation. An exception also does, and comes out of this call.
    tiller::generation generate(
        const std::string &prompt,
        tiller_generate options = {},
        const std::function<bool(const std::string &)> &stream = nullptr
    ) {
        return run(prompt.c_str(), options, stream);
    }
    // Answers a conversation of {role, content}. What the turns say stays text, whatever control tokens it names.
    tiller::generation answer(
        const std::vector<std::pair<std::string, std::string>> &turns,
        tiller_generate options = {},
        const std::function<bool(const std::string &)> &stream = nullptr
    ) {
        std::vector<tiller_message> messages;
        for (const auto &[role, content] : turns) messages.push_back({role.c_str(), content.c_str()});
        options.messages = messages.data();
        options.n_messages = messages.size();
        return run(nullptr, options, stream);
    }

private:
    tiller::generation run(
        const char *prompt, tiller_generate options, const std::function<bool(const std::string &)> &stream
    ) {
        struct lent {
            const std::function<bool(const std::string &)> &fn;
            std::exception_ptr thrown;
        } lent{stream, nullptr};
        const auto piece = [](void *user, const char *text) -> int {
            auto *lent = static_cast<struct lent *>(user);
            try {
                return lent->fn(text) ? 0 : 1;
            } catch (...) {
                lent->thrown = std::current_exception();
                return 1;
            }
        };
        options.size = static_cast<uint32_t>(sizeof options);
        tiller::generation made(detail::make<tiller_generation>([&](auto **out, auto **err) {
            const tiller_stream_fn fn = stream ? +piece : nullptr;
            return tiller_engine_generate(get(), prompt, &options, fn, &lent, out, err);
        }));
        if (lent.thrown) std::rethrow_exception(lent.thrown);
        return made;
    }

public:
    // As many side by side as the engine has sequences.
    std::vector<tiller::generation> generate_many(const std::vector<std::string> &prompts, tiller_generate options = {}) {
        options.size = static_cast<uint32_t>(sizeof options);
        std::vector<tiller_generation *> handles(prompts.size());
        detail::call([&](auto **err) {
            return tiller_engine_generate_many(
                get(), detail::pointers(prompts).data(), prompts.size(), &options, handles.data(), err);
        });
        return std::vector<tiller::generation>(handles.begin(), handles.end());
    }
    tiller::generation begin(const std::string &prompt, tiller_generate options = {}) {
        options.size = static_cast<uint32_t>(sizeof options);
        return tiller::generation(detail::make<tiller_generation>(
            [&](auto **out, auto **err) { return tiller_engine_begin(get(), prompt.c_str(), &options, out, err); }));
    }
    // One token; false when the generation has ended.
    bool step(tiller::generation &generation) {
        bool more = false;
        detail::call([&](auto **err) { return tiller_engine_step(get(), generation.get(), &more, err); });
        return more;
    }
    // The factor for plan::scaled() at which the model speaks most of the words and stays fluent; its factor is 0 if
    // every one broke the text.
    tiller_found find_strength(
        const tiller::plan &plan,
        const std::vector<std::pair<std::string, const dictionary *>> &dictionaries,
        const std::vector<std::string> &words,
        const tiller::matches *matches = nullptr,
        tiller_search options = {},
        const progress_fn &progress = nullptr
    ) {
        options.size = static_cast<uint32_t>(sizeof options);
        auto found = detail::sized<tiller_found>();
        const auto named = detail::named(dictionaries);
        const auto list = detail::pointers(words);
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_engine_find_strength(
                get(), plan.get(), named.data(), named.size(), list.data(), list.size(),
                matches ? matches->get() : nullptr, &options, lent.get(), &found, err);
        });
        return found;
    }
    // Of the features that mean the words, those that make the model say them, best first.
    tiller::matches rank(
        const dictionary &dictionary,
        const tiller::matches &matches,
        const std::vector<std::string> &words,
        size_t n_features,
        tiller_output options = {},
        const progress_fn &progress = nullptr
    ) {
        options.size = static_cast<uint32_t>(sizeof options);
        const auto list = detail::pointers(words);
        detail::progress lent(progress);
        tiller_matches *made = nullptr;
        lent.run([&](tiller_error **err) {
            return tiller_engine_rank(
                get(), dictionary.get(), matches.get(), list.data(), list.size(), n_features, &options, lent.get(),
                &made, err);
        });
        return tiller::matches(made);
    }
    tiller_score perplexity(const std::string &text, size_t window = 0) {
        auto score = detail::sized<tiller_score>();
        detail::call([&](auto **err) { return tiller_engine_perplexity(get(), text.c_str(), window, &score, err); });
        return score;
    }
    tiller_score score(const std::vector<int32_t> &tokens, size_t from) {
        auto score = detail::sized<tiller_score>();
        detail::call([&](auto **err) {
            return tiller_engine_score(get(), tokens.data(), tokens.size(), from, &score, err);
        });
        return score;
    }
    // Gives the number of rows.
    uint64_t harvest(
        const std::vector<std::string> &files,
        const std::string &directory,
        const std::vector<uint32_t> &layers,
        tiller_harvest options = {},
        const progress_fn &progress = nullptr
    ) {
        options.size = static_cast<uint32_t>(sizeof options);
        options.layers = layers.data();
        options.n_layers = static_cast<uint32_t>(layers.size());
        uint64_t n_rows = 0;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            const auto list = detail::pointers(files);
            return tiller_engine_harvest(
                get(), list.data(), list.size(), directory.c_str(), &options, lent.get(), &n_rows, err);
        });
        return n_rows;
    }
    // Trains a dictionary on text files without storing a row. `recipe`, `threads`, `checkpoint` and `metrics` are those of
    // train_recipe().
    dictionary train(
        const std::vector<std::string> &files,
        tiller_streamed options,
        const std::string &recipe,
        uint32_t threads = 0,
        const std::string &checkpoint = "",
        const std::string &metrics = "",
        const progress_fn &progress = nullptr
    ) {
        options.size = static_cast<uint32_t>(sizeof options);
        tiller_dictionary *made = nullptr;
        detail::progress lent(progress);
        const auto file = [](const std::string &path) { return path.empty() ? nullptr : path.c_str(); };
        lent.run([&](tiller_error **err) {
            const auto list = detail::pointers(files);
            return tiller_engine_train(
                get(), list.data(), list.size(), &options, recipe.c_str(), threads, file(checkpoint), file(metrics),
                lent.get(), &made, err);
        });
        return dictionary(made);
    }
    // Learns an instruction: features of several layers, and a report. Request and report are JSON: tiller_engine_learn().
    std::pair<dictionary, std::string> learn(const std::string &request, const progress_fn &progress = nullptr) {
        tiller_dictionary *made = nullptr;
        tiller_text *text = nullptr;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_engine_learn(get(), request.c_str(), lent.get(), &made, &text, err);
        });
        const std::unique_ptr<tiller_text, decltype(&tiller_text_free)> report(text, tiller_text_free);
        dictionary features(made);
        return {std::move(features), std::string(tiller_text_data(report.get()), tiller_text_length(report.get()))};
    }
    // Learns a guard, with a report. Request and report are JSON: tiller_engine_guard_learn().
    std::pair<guard, std::string> guard_learn(const std::string &request, const progress_fn &progress = nullptr) {
        tiller_guard *made = nullptr;
        tiller_text *text = nullptr;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_engine_guard_learn(get(), request.c_str(), lent.get(), &made, &text, err);
        });
        const std::unique_ptr<tiller_text, decltype(&tiller_text_free)> report(text, tiller_text_free);
        guard learned(made);
        return {std::move(learned), std::string(tiller_text_data(report.get()), tiller_text_length(report.get()))};
    }
    // Examines a guard and returns a report. Request and report are JSON: tiller_engine_guard_test().
    std::string guard_test(const guard &guard, const std::string &request, const progress_fn &progress = nullptr) {
        tiller_text *text = nullptr;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_engine_guard_test(get(), guard.get(), request.c_str(), lent.get(), &text, err);
        });
        const std::unique_ptr<tiller_text, decltype(&tiller_text_free)> report(text, tiller_text_free);
        return std::string(tiller_text_data(report.get()), tiller_text_length(report.get()));
    }
    // What the plan's monitors read since the last call, and the verdicts that followed.
    tiller::watched watched() {
        return tiller::watched(
            detail::make<tiller_watched>([&](auto **out, auto **err) { return tiller_engine_watched(get(), out, err); }));
    }
    // Runs an evaluator and returns its report. Request and report are JSON: tiller_engine_evaluate().
    std::string evaluate(const std::string &request, const progress_fn &progress = nullptr) {
        tiller_text *text = nullptr;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_engine_evaluate(get(), request.c_str(), lent.get(), &text, err);
        });
        const std::unique_ptr<tiller_text, decltype(&tiller_text_free)> report(text, tiller_text_free);
        return std::string(tiller_text_data(report.get()), tiller_text_length(report.get()));
    }
    // Explains features through the unembedding; `from` and `to` are both NULL, or the rows of two layers.
    tiller::explanations explain(
        const tiller::model &model,
        const tiller::dictionary &dictionary,
        const tiller::vocabulary &vocabulary,
        const activations *from = nullptr,
        const activations *to = nullptr,
        tiller_lens options = {},
        const progress_fn &progress = nullptr
    ) const {
        options.size = static_cast<uint32_t>(sizeof options);
        tiller_explanations *made = nullptr;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_engine_explain(
                get(), model.get(), dictionary.get(), vocabulary.get(), from ? from->get() : nullptr,
                to ? to->get() : nullptr, &options, lent.get(), &made, err);
        });
        return tiller::explanations(made);
    }
    // Tests a dictionary on text files.
    tiller_self_tested self_test(
        const tiller::dictionary &dictionary,
        const std::vector<std::string> &files,
        tiller_self_test options = {},
        const progress_fn &progress = nullptr
    ) {
        options.size = static_cast<uint32_t>(sizeof options);
        auto tested = detail::sized<tiller_self_tested>();
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            const auto list = detail::pointers(files);
            return tiller_engine_self_test(
                get(), dictionary.get(), list.data(), list.size(), &options, lent.get(), &tested, err);
        });
        return tested;
    }
    // Whether a dictionary fits the model, on the first few hundred tokens of text files.
    tiller::diagnosis diagnose(
        const tiller::dictionary &dictionary,
        const std::vector<std::string> &files,
        tiller_self_test options = {},
        const progress_fn &progress = nullptr
    ) {
        options.size = static_cast<uint32_t>(sizeof options);
        tiller_diagnosis *made = nullptr;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            const auto list = detail::pointers(files);
            return tiller_engine_diagnose(
                get(), dictionary.get(), list.data(), list.size(), &options, lent.get(), &made, err);
        });
        return tiller::diagnosis(made);
    }
    // The rows of the last tokens of texts at a hook point such as "blocks.19.hook_resid_post", one after another.
    std::vector<float> last_rows(
        const std::vector<std::string> &texts, const std::string &hook, const progress_fn &progress = nullptr
    ) {
        const auto list = detail::pointers(texts);
        std::vector<float> rows(texts.size() * d_model());
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            return tiller_engine_last_rows(
                get(), list.data(), list.size(), hook.c_str(), lent.get(), rows.data(), rows.size(), err);
        });
        return rows;
    }
    // Relations between words, read by the model. `pairs` is a file of them, "" for those that come along.
    tiller::concepts concepts(
        const std::string &hook, const std::string &pairs = "", const progress_fn &progress = nullptr
    ) {
        tiller_concepts *made = nullptr;
        detail::progress lent(progress);
        lent.run([&](tiller_error **err) {
            const char *file = pairs.empty() ? nullptr : pairs.c_str();
            return tiller_engine_concepts(get(), file, hook.c_str(), lent.get(), &made, err);
        });
        return tiller::concepts(made);
    }
    tiller_engine *get() const noexcept { return c_.get(); }

private:
    detail::owned<tiller_engine, tiller_engine_free> c_;
};

// Measures a dictionary on several quantizations of one model; the first is what the others are compared with.
inline std::vector<tiller_drifted> drift(
    const dictionary &dictionary,
    const std::vector<std::string> &models,
    const std::vector<std::string> &files,
    tiller_engine_options engine = {},
    tiller_self_test options = {},
    const progress_fn &progress = nullptr
) {
    engine.size = static_cast<uint32_t>(sizeof engine);
    options.size = static_cast<uint32_t>(sizeof options);
    std::vector<tiller_drifted> out(models.size(), detail::sized<tiller_drifted>());
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        const auto list = detail::pointers(models), texts = detail::pointers(files);
        return tiller_dictionary_drift(
            dictionary.get(), list.data(), list.size(), texts.data(), texts.size(), &engine, &options, lent.get(),
            out.data(), err);
    });
    return out;
}

inline void requantize(const std::string &from, const std::string &to, const std::string &kind, uint32_t threads = 0) {
    detail::call(
        [&](auto **err) { return tiller_requantize(from.c_str(), to.c_str(), kind.c_str(), threads, err); });
}

// Makes a model file steerable: a dictionary of the layer that steers best, with explanations and a report, in a directory.
inline tiller_adopted adopt(
    const std::string &model,
    const std::string &directory,
    const std::vector<std::string> &files = {},
    const std::vector<uint32_t> &layers = {},
    tiller_adopt_options options = {},
    const progress_fn &progress = nullptr
) {
    options.size = static_cast<uint32_t>(sizeof options);
    const auto texts = detail::pointers(files);
    options.files = texts.data(), options.n_files = texts.size();
    options.layers = layers.data(), options.n_layers = layers.size();
    auto adopted = detail::sized<tiller_adopted>();
    detail::progress lent(progress);
    lent.run([&](tiller_error **err) {
        return tiller_adopt(model.c_str(), directory.c_str(), &options, lent.get(), &adopted, err);
    });
    return adopted;
}

#endif  // TILLER_ENGINE

}  // namespace tiller

#endif  // TILLER_HPP
