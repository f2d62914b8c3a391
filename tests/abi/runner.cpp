// The cases of cases.tsv through tiller.hpp.
#include "tiller.hpp"

#include <cmath>
#include <functional>
#include <future>
#include <map>
#include <sstream>

#include "fake_ggml.h"
#include "runner.h"

using arguments = std::vector<std::string>;

// ---- Handles by name ----

static std::map<std::string, std::shared_ptr<void>> handles;

template <class T>
T &get(const std::string &name) {
    return *static_cast<T *>(handles.at(name).get());
}

template <class T>
T &keep(const std::string &name, T made) {
    handles[name] = std::make_shared<T>(std::move(made));
    return get<T>(name);
}

// ---- What goes in and comes out: lists are parted by spaces, "-" is none ----

template <class T>
std::vector<T> list(const std::string &text) {
    std::vector<T> out;
    if (text == "-") return out;
    std::istringstream in(text);
    for (T value; in >> value;) out.push_back(value);
    return out;
}

static std::vector<std::string> split(const std::string &text, char at) {
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, at);) out.push_back(part);
    return out;
}

// "position:sequence:generated:token:shared,shared …"; what is left out, or no number, is not known, or none.
static std::vector<tiller_row> row_list(const std::string &text) {
    std::vector<tiller_row> out;
    for (const std::string &word : list<std::string>(text)) {
        const auto part = split(word, ':');
        tiller_row row{};
        row.position = std::stoi(part[0]);
        row.generated = static_cast<uint32_t>(std::stoul(part[2]));
        row.has_token = part.size() > 3 && part[3] != "-";
        row.token = row.has_token ? std::stoi(part[3]) : 0;
        std::vector<int32_t> ids;
        if (std::stoi(part[1]) >= 0) ids.push_back(std::stoi(part[1]));
        if (part.size() > 4) for (const std::string &id : split(part[4], ',')) ids.push_back(std::stoi(id));
        tiller::set_sequences(row, ids);
        out.push_back(row);
    }
    return out;
}

static std::vector<tiller_code> code_list(const std::string &text) {
    std::vector<tiller_code> out;
    for (const std::string &word : list<std::string>(text)) {
        tiller_code code{};
        sscanf(word.c_str(), "%u:%f", &code.feature, &code.activation);
        out.push_back(code);
    }
    return out;
}

static std::string show(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.5g", value);
    return text;
}
static std::string show(float value) { return show(static_cast<double>(value)); }
static std::string show(bool value) { return value ? "true" : "false"; }
static std::string show(const std::string &value) { return value; }
static std::string show(const char *value) { return value; }
template <class T>
std::string show(T value) {
    return std::to_string(value);
}
static std::string show(const tiller_row &row) {
    std::string out = show(row.position) + ":" + show(row.sequence) + ":" + show(row.generated) + ":";
    out += row.has_token ? show(row.token) : "-";
    const char *mark = ":";
    for (const int32_t id : tiller::sequences(row)) {
        if (id != row.sequence) out += mark + show(id), mark = ",";
    }
    return out;
}
static std::string show(const tiller_target &target) {
    return show(target.n_layer) + " " + show(target.d_model) + " " + show(target.architecture);
}
static std::string show(const tiller_code &code) { return show(code.feature) + ":" + show(code.activation); }
template <class T>
std::string show(const std::vector<T> &values) {
    std::string out;
    for (const T &value : values) out += (out.empty() ? "" : " ") + show(value);
    return out;
}
template <class First, class... Rest>
std::string show(const First &first, const Rest &...rest) {
    std::string out = show(first);
    ((out += " " + show(rest)), ...);
    return out;
}

static float *or_null(std::vector<float> &values) { return values.empty() ? nullptr : values.data(); }
static uint32_t number(const std::string &text) { return static_cast<uint32_t>(std::stoul(text)); }
static arguments from(const arguments &a, size_t i) { return arguments(a.begin() + static_cast<long>(i), a.end()); }

// ---- The operations ----

using namespace tiller;

static std::string signs(const probe &made) {
    std::string out;
    for (const float weight : made.weights()) out += weight > 0 ? "+" : weight < 0 ? "-" : "0";
    return out + (made.bias() > 0 ? " +" : " -");
}

static std::string dictionary_new(const arguments &a) {
    auto encoder = list<float>(a[5]), decoder = list<float>(a[6]), threshold = list<float>(a[7]), stats = list<float>(a[8]);
    tiller_dictionary_parts parts{};
    parts.activation = number(a[1]);
    parts.d_model = number(a[2]);
    parts.n_features = number(a[3]);
    parts.k = number(a[4]);
    parts.encoder = or_null(encoder);
    parts.decoder = or_null(decoder);
    parts.threshold = or_null(threshold);
    parts.stats = reinterpret_cast<const tiller_stats *>(or_null(stats));
    parts.has_layer = a[9][0] != '-';
    parts.layer = parts.has_layer ? number(a[9]) : 0;
    parts.name = a[10] == "-" ? nullptr : a[10].c_str();
    keep(a[0], dictionary(parts));
    return "";
}

// hook, context, node, data, width, positions, host or device
static std::string hook_graph(const arguments &a) {
    auto data = list<float>(a[3]);
    const auto positions = list<int32_t>(a[5]);
    const fake_batch batch = {
        a[1][0], a[2].c_str(), data.data(), number(a[4]), positions.data(), positions.size(), a[6] == "device"
    };
    return show(fake_decode(get<hook>(a[0]).get(), &batch), data);
}

static std::string show(const tiller_report &r) {
    return show(r.graphs, r.foreign_graphs, r.rows_seen, r.rows_edited, r.rows_not_needed, r.rows_refused, r.rows_restored,
                r.rows_captured);
}

// The counts; "| rows unjudged code size" for each rule; "! STATUS count what" for each fault.
static std::string show(const ledger &done) {
    const auto mean = [](double x) { return std::isnan(x) ? "-" : show(x); };
    std::string out = show(done.report());
    for (const tiller_rule_report &rule : done.rules()) {
        out += " | " + show(rule.rows, rule.rows_unjudged, mean(rule.mean_code), mean(rule.relative_size));
    }
    for (const fault &fault : done.faults()) {
        out += " ! " + show(status_name(fault.what.status()), fault.count, fault.what.what());
    }
    return out;
}

static std::string find_tensor(const gguf &file, const std::string &name) {
    for (size_t i = 0; i < file.n_tensors(); i++) {
        const tiller_tensor t = file.tensor(i);
        if (name == t.name) return show(t.name, t.dtype, t.shape[0], t.shape[1], t.shape[2], t.shape[3], t.n_bytes);
    }
    return "";
}

static compiled *plan_of(const arguments &a) { return a[1] == "-" ? nullptr : &get<compiled>(a[1]); }

// "2" is the residual stream after block 2; "2/4" site 4 of it.
static tiller_point point(const std::string &text) {
    const auto site = text.find('/');
    return {number(text.substr(0, site)), site == std::string::npos ? 0 : number(text.substr(site + 1))};
}

static std::vector<tiller_point> points(const std::string &text) {
    return text == "-" ? std::vector<tiller_point>{} : std::vector<tiller_point>{point(text)};
}

static int add_one(void *user, float *data, size_t d_model, const tiller_row *, size_t n_rows) {
    for (size_t i = 0; i < n_rows * d_model; i++) data[i] += 1;
    return user == nullptr;
}

static std::string features(const matches &found) {
    std::vector<uint32_t> features;
    for (size_t i = 0; i < found.size(); i++) features.push_back(found[i].feature);
    return show(features);
}

static std::string rules(const std::string &name, plan made) { return show(keep(name, std::move(made)).n_rules()); }

static const std::map<std::string, std::function<std::string(const arguments &)>> operations = {
    {"version", [](auto &) { return version(); }},
    {"free", [](auto &a) { return handles.erase(a[0]), ""; }},
    {"dictionary_new", dictionary_new},
    {"dictionary_open", [](auto &a) { return keep(a[0], dictionary(a[1])), ""; }},
    {"dictionary_info",
     [](auto &a) {
         const auto i = get<dictionary>(a[0]).info();
         return show(i.activation, i.d_model, i.n_features, i.k, i.layer, i.has_stats, i.storage, i.name);
     }},
    {"dictionary_stats",
     [](auto &a) {
         const auto s = get<dictionary>(a[0]).stats(number(a[1]));
         return show(s.density, s.max, s.mean);
     }},
    {"dictionary_encode", [](auto &a) { return show(get<dictionary>(a[0]).encode(list<float>(a[1]))); }},
    {"dictionary_encode_rows",
     [](auto &a) {
         const auto codes = get<dictionary>(a[0]).encode_rows(list<float>(a[1]), number(a[2]));
         std::string out;
         for (size_t i = 0; i < codes.n_rows(); i++) out += (i ? " | " : "") + show(codes.row(i));
         return out;
     }},
    {"dictionary_decode", [](auto &a) { return show(get<dictionary>(a[0]).decode(code_list(a[1]))); }},
    {"dictionary_encoder_row", [](auto &a) { return show(get<dictionary>(a[0]).encoder_row(number(a[1]))); }},
    {"dictionary_decoder_row", [](auto &a) { return show(get<dictionary>(a[0]).decoder_row(number(a[1]))); }},
    {"dictionary_save", [](auto &a) { return get<dictionary>(a[0]).save(a[1], a[2]), ""; }},
    {"dictionary_open_as", [](auto &a) { return keep(a[0], dictionary(a[1], a[2])), ""; }},
    {"dictionary_convert",
     [](auto &a) {
         const auto loss = get<dictionary>(a[0]).convert(a[1], a[2]);
         return show(loss.encoder_min, loss.encoder_mean, loss.decoder_min, loss.decoder_mean);
     }},
    {"dictionary_encode_file",
     [](auto &a) {
         const auto done = encode_file(get<dictionary>(a[0]), a[1], a[3], number(a[4]), a[2] == "-" ? "" : a[2]);
         return show(done.n_rows, done.n_active);
     }},
    {"dictionary_decode_file",
     [](auto &a) { return show(decode_file(get<dictionary>(a[0]), a[1], a[3], a[2] == "-" ? "" : a[2])); }},
    {"dictionary_diagnose",
     [](auto &a) {
         std::vector<std::pair<std::string, std::vector<float>>> rows{{a[2], list<float>(a[3])}};
         if (a[4] != "-") rows.emplace_back(a[4], list<float>(a[5]));
         return keep(a[0], diagnose(get<dictionary>(a[1]), rows)), "";
     }},
    {"diagnosis_get",
     [](auto &a) {
         const auto found = get<diagnosis>(a[0]).get_figures();
         return show(found.fits != 0, found.has_cause != 0, found.l0, found.promised_l0);
     }},
    {"diagnosis_verdict", [](auto &a) { return show(get<diagnosis>(a[0]).verdict()); }},
    {"diagnosis_tried",
     [](auto &a) {
         const auto found = get<diagnosis>(a[0]).tried(number(a[1]));
         return show(found.l0 >= 0 && found.fvu >= 0, found.words);
     }},
    {"dictionary_save_saelens", [](auto &a) { return get<dictionary>(a[0]).save_saelens(a[1]), ""; }},
    {"dictionary_save_sparsify", [](auto &a) { return get<dictionary>(a[0]).save_sparsify(a[1]), ""; }},
    {"dictionary_select",
     [](auto &a) { return show(keep(a[0], get<dictionary>(a[1]).select(list<uint32_t>(a[2]))).n_features()); }},
    {"slice_new",
     [](auto &a) {
         const auto &made = keep(a[0], get<dictionary>(a[1]).slice(list<uint32_t>(a[2])));
         return show(made.size(), made.is_exact());
     }},
    {"slice_encode", [](auto &a) { return show(get<slice>(a[0]).encode(list<float>(a[1]))); }},
    {"slice_edit",
     [](auto &a) {
         auto row = list<float>(a[2]);
         get<slice>(a[0]).edit(list<float>(a[1]), row);
         return show(row);
     }},
    {"gguf_open", [](auto &a) { return keep(a[0], gguf(a[1])), ""; }},
    {"gguf_value", [](auto &a) { return get<gguf>(a[0]).value(a[1]); }},
    {"gguf_has",
     [](auto &a) {
         bool has = false;
         for (const auto &key : get<gguf>(a[0]).keys()) has |= key == a[1];
         return show(has);
     }},
    {"gguf_tensor", [](auto &a) { return find_tensor(get<gguf>(a[0]), a[1]); }},
    {"model_open", [](auto &a) { return keep(a[0], model(a[1])), ""; }},
    {"model_info",
     [](auto &a) {
         const auto &m = get<model>(a[0]);
         return show(
             m.architecture(), m.name(), m.quantization(), m.n_layer(), m.d_model(), m.n_vocab(), m.context_length(),
             m.tied_unembedding(), m.bos(), m.eos(), m.add_bos());
     }},
    {"model_target", [](auto &a) { return show(get<model>(a[0]).target()); }},
    {"model_fingerprint_length", [](auto &a) { return show(get<model>(a[0]).fingerprint().size()); }},
    {"model_token_text", [](auto &a) { return get<model>(a[0]).token_text(static_cast<int32_t>(number(a[1]))); }},
    {"model_token_bytes", [](auto &a) { return get<model>(a[0]).token_bytes(static_cast<int32_t>(number(a[1]))); }},
    {"model_output_norm",
     [](auto &a) {
         const auto norm = get<model>(a[0]).output_norm();
         return show(norm.weight, norm.epsilon);
     }},
    {"model_unembedding_row",
     [](auto &a) { return show(get<model>(a[0]).unembedding_row(static_cast<int32_t>(number(a[1])))); }},
    {"model_check", [](auto &a) { return get<model>(a[0]).check(get<dictionary>(a[1])); }},
    {"vocabulary_new", [](auto &a) { return show(keep(a[0], vocabulary(from(a, 2), number(a[1]))).size()); }},
    {"vocabulary_open", [](auto &a) { return show(keep(a[0], vocabulary(a[1])).size()); }},
    {"vocabulary_word", [](auto &a) { return get<vocabulary>(a[0]).word(number(a[1])); }},
    {"vocabulary_save", [](auto &a) { return get<vocabulary>(a[0]).save(a[1]), ""; }},
    {"explanations_open", [](auto &a) { return show(keep(a[0], explanations(a[1])).size()); }},
    {"explanations_feature", [](auto &a) { return show(get<explanations>(a[0]).feature(number(a[1]))); }},
    {"explanations_words", [](auto &a) { return get<explanations>(a[0]).words(number(a[1]), number(a[2])); }},
    {"explanations_json", [](auto &a) { return get<explanations>(a[0]).json(number(a[1])); }},
    {"explanations_find",
     [](auto &a) { return features(keep(a[0], get<explanations>(a[1]).find(from(a, 3), number(a[2])))); }},
    {"explanations_find_label",
     [](auto &a) { return features(keep(a[0], get<explanations>(a[1]).find_label(a[3], number(a[2])))); }},
    {"match",
     [](auto &a) {
         const auto match = get<matches>(a[0])[number(a[1])];
         return show(match.feature, match.weight, match.words);
     }},
    {"explanations_unknown", [](auto &a) { return get<explanations>(a[0]).unknown_words(from(a, 1)); }},
    {"explanations_label",
     [](auto &a) {
         if (a[2] == "-") {
             get<explanations>(a[0]).clear_label(number(a[1]));
         } else {
             get<explanations>(a[0]).set_label(number(a[1]), a[2]);
         }
         return "";
     }},
    {"explanations_save_labels", [](auto &a) { return get<explanations>(a[0]).save_labels(a[1]), ""; }},
    {"explanations_load_labels", [](auto &a) { return show(get<explanations>(a[0]).load_labels(a[1])); }},
    {"explanations_save", [](auto &a) { return get<explanations>(a[0]).save(a[1]), ""; }},
    {"plan_parse", [](auto &a) { return rules(a[0], plan::parse(a[1])); }},
    {"plan_open", [](auto &a) { return rules(a[0], plan(a[1])); }},
    {"plan_for", [](auto &a) { return rules(a[0], plan(get<matches>(a[1]), a[2], std::stof(a[3]), number(a[4]))); }},
    {"plan_scaled", [](auto &a) { return rules(a[0], get<plan>(a[1]).scaled(std::stof(a[2]))); }},
    {"plan_json", [](auto &a) { return get<plan>(a[0]).json(); }},
    {"plan_save", [](auto &a) { return get<plan>(a[0]).save(a[1]), ""; }},
    {"plan_compile",
     [](auto &a) {
         const tiller_target target{0, number(a[3]), number(a[4]), a.size() > 6 ? a[6].c_str() : nullptr};
         const auto &made = keep(a[0], get<plan>(a[1]).compile({{"", &get<dictionary>(a[5])}}, target, number(a[2])));
         return show(made.needs_callback(), made.control_vector().size()) +
                (made.fingerprint().size() == 64 ? "" : " (wrong fingerprint)");
     }},
    {"compiled_check", [](auto &a) { return get<compiled>(a[0]).check(number(a[1]), number(a[2])), ""; }},
    {"compiled_control_vector", [](auto &a) { return show(get<compiled>(a[0]).control_vector()); }},
    {"compiled_apply",
     [](auto &a) {
         auto data = list<float>(a[2]);
         const uint64_t n = get<compiled>(a[0]).apply(point(a[1]), data, row_list(a[3]));
         return show(data, n);
     }},
    {"control_vector_new", [](auto &a) { return keep(a[0], control_vector(size_t{number(a[1])})), ""; }},
    {"control_vector_open", [](auto &a) { return keep(a[0], control_vector(a[1])), ""; }},
    {"control_vector_add", [](auto &a) { return get<control_vector>(a[0]).add(number(a[1]), list<float>(a[2])), ""; }},
    {"control_vector_data", [](auto &a) { return show(get<control_vector>(a[0]).data(number(a[1]))); }},
    {"control_vector_save", [](auto &a) { return get<control_vector>(a[0]).save(a[1], a[2]), ""; }},
    {"coder_train",
     [](auto &a) {
         tiller_coder_options options{};
         options.objective = number(a[1]);
         options.regularizer = number(a[2]);
         options.groups = number(a[3]);
         options.sparsity = number(a[4]);
         options.n_latents = number(a[5]);
         options.steps = number(a[6]);
         options.threads = 1;
         const auto &made = keep(a[0], coder::train(list<float>(a[8]), number(a[7]), options));
         return show(made.d_model(), made.n_latents());
     }},
    {"coder_open",
     [](auto &a) {
         const auto &made = keep(a[0], coder(a[1]));
         return show(made.d_model(), made.n_latents());
     }},
    {"coder_save", [](auto &a) { return get<coder>(a[0]).save(a[1]), ""; }},
    {"coder_code",
     [](auto &a) {
         const auto codes = get<coder>(a[0]).encode(list<float>(a[1]), 1);
         get<coder>(a[0]).decode(codes, 1);
         get<coder>(a[0]).decoder_row(number(a[2]));
         return show(codes.size(), "codes");
     }},
    {"coder_dictionary", [](auto &a) { return keep(a[0], get<coder>(a[1]).dictionary()), ""; }},
    {"concepts_new", [](auto &a) { return keep(a[0], concepts(number(a[1]))), ""; }},
    {"concepts_add",
     [](auto &a) {
         auto &all = get<concepts>(a[0]);
         const auto labels = list<uint32_t>(a[3]);
         all.add(a[1], list<float>(a[2]), std::vector<uint8_t>(labels.begin(), labels.end()));
         return show(all.size());
     }},
    {"dictionary_mpc",
     [](auto &a) {
         const auto &all = get<concepts>(a[1]);
         const mpc found(get<dictionary>(a[0]), all);
         const auto f = found.figures();
         std::string out = show(f.mpc > 0 && f.mpc < 1.000001 && f.raw >= f.shuffled_raw && f.shuffled >= 0);
         for (size_t i = 0; i < all.size(); i++) out += " " + show(found[i].name, found[i].feature);
         return out;
     }},
    {"coder_mpc",
     [](auto &a) {
         const auto f = mpc(get<coder>(a[0]), get<concepts>(a[1]), 1).figures();
         return show("codes", f.mpc > 0 && f.mpc < 1.000001 && f.raw >= f.shuffled_raw && f.shuffled >= 0);
     }},
    {"direction",
     [](auto &a) {
         const direction found(list<float>(a[2]), list<float>(a[3]), number(a[1]), number(a[0]));
         return show(found.values, found.report.agreement);
     }},
    {"probe_fit",
     [](auto &a) {
         tiller_probe_options options{};
         options.penalty = number(a[1]);
         options.k = number(a[2]);
         options.c = 10;
         options.threads = 1;
         std::vector<uint8_t> labels;
         for (const uint32_t label : list<uint32_t>(a[5])) labels.push_back(static_cast<uint8_t>(label));
         return signs(keep(a[0], probe(list<float>(a[4]), number(a[3]), labels, options)));
     }},
    {"probe_open", [](auto &a) { return signs(keep(a[0], probe(a[1]))); }},
    {"probe_save", [](auto &a) { return get<probe>(a[0]).save(a[1]), ""; }},
    {"temporal_open", [](auto &a) { return keep(a[0], temporal(a[1])), ""; }},
    {"temporal_save", [](auto &a) { return get<temporal>(a[0]).save(a[1]), ""; }},
    {"temporal_info",
     [](auto &a) {
         const auto &t = get<temporal>(a[0]);
         return show(t.n_latents(), t.lags(), t.d_model(), t.features(), t.order(), t.deviation());
     }},
    {"temporal_weights", [](auto &a) { return show(get<temporal>(a[0]).weights(number(a[1]))); }},
    {"temporal_response", [](auto &a) { return show(get<temporal>(a[0]).response(number(a[1]), number(a[2]))); }},
    {"temporal_direction",
     [](auto &a) { return show(get<temporal>(a[0]).direction(number(a[1]), number(a[2]) != 0)); }},
    {"hook_new", [](auto &a) { return keep(a[0], hook(fake_ggml())), ""; }},
    {"ggml_probe", [](auto &a) { return probe_ggml(a[0] == "-" ? nullptr : fake_lookup, const_cast<char *>(a[0].data())), ""; }},
    {"hook_graph", hook_graph},
    {"hook_set_plan", [](auto &a) { return get<hook>(a[0]).set_plan(plan_of(a)), ""; }},
    {"hook_vector",
     [](auto &a) {
         get<hook>(a[0]).set_plan(plan_of(a));
         return show(get<hook>(a[0]).has_control_vector());
     }},
    {"hook_announce", [](auto &a) { return get<hook>(a[0]).announce(row_list(a[1])), ""; }},
    {"hook_capture", [](auto &a) { return get<hook>(a[0]).capture(points(a[1])), ""; }},
    {"hook_architecture", [](auto &a) { return get<hook>(a[0]).set_architecture(a[1]), ""; }},
    {"hook_patch",
     [](auto &a) {
         return get<hook>(a[0]).patch(point(a[1]), number(a[2]) ? add_one : nullptr, &get<hook>(a[0])), "";
     }},
    {"hook_captured",
     [](auto &a) {
         const auto taken = get<hook>(a[0]).take(point(a[1]));
         return taken.n_rows() ? show(taken.data(), taken.tokens()) : "";
     }},
    {"hook_stop_after", [](auto &a) { return get<hook>(a[0]).stop_after(std::stoi(a[1])), ""; }},
    {"hook_finish", [](auto &a) { return show(get<hook>(a[0]).finish()); }},
    {"hook_ledger", [](auto &a) { return show(get<hook>(a[0]).ledger()); }},
    {"hook_check_plan", [](auto &a) { return get<hook>(a[0]).check_plan(plan_of(a)), ""; }},
    {"hook_sequences", [](auto &a) { return get<hook>(a[0]).set_sequences(number(a[1])), ""; }},
    {"hook_rebind", [](auto &a) { return get<hook>(a[0]).rebind(), ""; }},
    {"hook_forget", [](auto &a) { return get<hook>(a[0]).forget_sequence(std::stoi(a[1])), ""; }},
    {"hook_set_plan_apart",
     [](auto &a) { return std::async(std::launch::async, [&] { get<hook>(a[0]).set_plan(plan_of(a)); }).get(), ""; }},
    {"hook_intrusion",
     [](auto &a) {
         fake_intruder in;
         detail::call([&](auto **err) { return fake_intrusion(get<hook>(a[0]).get(), point(a[1]), &in, err); });
         return show(in.answer, in.data, status_name(in.announced), status_name(in.planned));
     }},
#ifdef TILLER_ENGINE
#include "runner_engine.inc"
#endif
};

static void run(char **fields, int n, const char **status, const char **result) {
    static std::string text;
    const auto operation = operations.find(fields[0]);
    if (operation == operations.end()) {
        *status = "no such operation";
        return;
    }
    try {
        text = operation->second(arguments(fields + 1, fields + n));
        *status = "OK";
    } catch (const error &e) {
        text = e.what();
        *status = status_name(e.status());
    } catch (const std::exception &e) {
        text = e.what();
        *status = "the runner itself failed";
    }
    *result = text.c_str();
}

int main(int argc, char **argv) {
    int failures = 0;
    for (int i = 1; i < argc; i++) failures += run_table(argv[i], run);
    return failures != 0;
}
