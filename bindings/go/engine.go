//go:build !tiller_guest

package tiller

// #include "tiller.h"
// extern int tillerGoStream(void *user, char *piece);
import "C"

import (
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// EngineOptions say how a model is opened and run; zero means the default.
type EngineOptions struct {
	Threads, Context, Batch, Sequences, GPULayers int
	WithoutHook                                   bool
}

// Engine is a model that this library runs. One goroutine at a time.
type Engine struct{ h *handle[C.tiller_engine] }

// OpenEngine opens a GGUF model.
func OpenEngine(file string, options EngineOptions) (*Engine, error) {
	name := cstring(file)
	defer free(name)
	o := options.c()
	var out *C.tiller_engine
	var err *C.tiller_error
	if e := check(C.tiller_engine_open(name, &o, &out, &err), err); e != nil {
		return nil, e
	}
	return &Engine{own(out, func(p *C.tiller_engine) { C.tiller_engine_free(p) })}, nil
}

func (options EngineOptions) c() (o C.tiller_engine_options) {
	o.size = C.uint32_t(unsafe.Sizeof(o))
	o.threads, o.context = C.uint32_t(options.Threads), C.uint32_t(options.Context)
	o.batch, o.sequences = C.uint32_t(options.Batch), C.uint32_t(options.Sequences)
	o.gpu_layers = C.uint32_t(options.GPULayers)
	if options.WithoutHook {
		o.without_hook = 1
	}
	return o
}

// Close frees the engine early: models are large, and the garbage collector doesn't see that.
func (n *Engine) Close() { n.h.close() }

// NLayer is the number of blocks.
func (n *Engine) NLayer() int {
	defer runtime.KeepAlive(n.h)
	return int(C.tiller_engine_n_layer(n.h.c()))
}

// Target is what a plan for it is compiled against.
func (n *Engine) Target() (Target, error) {
	defer runtime.KeepAlive(n.h)
	out := C.tiller_target{size: C.sizeof_tiller_target}
	var err *C.tiller_error
	return newTarget(C.tiller_engine_target(n.h.c(), &out, &err), &out, err)
}

// DModel is the width of the residual stream.
func (n *Engine) DModel() int {
	defer runtime.KeepAlive(n.h)
	return int(C.tiller_engine_d_model(n.h.c()))
}

// NVocab is the number of tokens of the vocabulary.
func (n *Engine) NVocab() int {
	defer runtime.KeepAlive(n.h)
	return int(C.tiller_engine_n_vocab(n.h.c()))
}

// Tokenize gives the tokens of a text. special puts BOS in front, if the model wants it, and reads control tokens.
func (n *Engine) Tokenize(s string, special bool) ([]int32, error) {
	defer runtime.KeepAlive(n.h)
	name := cstring(s)
	defer free(name)
	out := make([]int32, len(s)+2)
	var found C.size_t
	var err *C.tiller_error
	status := C.tiller_engine_tokenize(
		n.h.c(), name, C.bool(special), tokens(out), C.size_t(len(out)), &found, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return out[:found], nil
}

// Detokenize gives the text of tokens.
func (n *Engine) Detokenize(list []int32) (string, error) {
	defer runtime.KeepAlive(n.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_engine_detokenize(n.h.c(), tokens(list), C.size_t(len(list)), &out, &err)
	return text(status, out, err)
}

// Message is one turn of a conversation; Role is "system", "user" or "assistant".
type Message struct{ Role, Content string }

// messages puts turns in C memory; call the function when done.
func messages(turns []Message) (*C.tiller_message, func()) {
	list := (*C.tiller_message)(calloc(C.size_t(len(turns)+1) * C.sizeof_tiller_message))
	all := unsafe.Slice(list, len(turns))
	for i, turn := range turns {
		all[i] = C.tiller_message{cstring(turn.Role), cstring(turn.Content)}
	}
	return list, func() {
		for _, turn := range all {
			free(turn.role)
			free(turn.content)
		}
		release(unsafe.Pointer(list))
	}
}

// Chat writes a conversation by the model's own template, for people to read; answer adds the opening of the assistant's
// turn. To have it answered, see Answer.
func (n *Engine) Chat(turns []Message, answer bool) (string, error) {
	defer runtime.KeepAlive(n.h)
	list, done := messages(turns)
	defer done()
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_engine_chat(n.h.c(), list, C.size_t(len(turns)), C.bool(answer), &out, &err)
	return text(status, out, err)
}

// SetPlan steers by a plan from the next token on; nil stops steering.
func (n *Engine) SetPlan(plan *Compiled) error {
	defer runtime.KeepAlive(n.h)
	var p *C.tiller_compiled
	if plan != nil {
		defer runtime.KeepAlive(plan.h)
		p = plan.h.c()
	}
	var err *C.tiller_error
	return check(C.tiller_engine_set_plan(n.h.c(), p, &err), err)
}

// Finish gives what the hook saw and did since the last call, whatever went wrong, and the first fault. Ledger tells all.
func (n *Engine) Finish() (Report, error) {
	defer runtime.KeepAlive(n.h)
	var r C.tiller_report
	r.size = C.uint32_t(unsafe.Sizeof(r))
	var err *C.tiller_error
	status := C.tiller_engine_finish(n.h.c(), &r, &err)
	return newReport(&r), check(status, err)
}

// Ledger is as Finish, with what each rule did and every fault.
func (n *Engine) Ledger() (Ledger, error) {
	defer runtime.KeepAlive(n.h)
	var out *C.tiller_ledger
	var err *C.tiller_error
	status := C.tiller_engine_ledger(n.h.c(), &out, &err)
	return newLedger(status, out, err)
}

// Rest has the threads sleep at once, for programs that compute with something else in between.
func (n *Engine) Rest() error {
	defer runtime.KeepAlive(n.h)
	var err *C.tiller_error
	return check(C.tiller_engine_rest(n.h.c(), &err), err)
}

// GenerateOptions say how text is generated; zero means the default.
type GenerateOptions struct {
	MaxTokens         int
	Temperature, TopP float32
	Seed              uint32
	IgnoreEnd         bool
	// MinP keeps the tokens that are at least this times as likely as the likeliest. RepeatPenalty makes tokens of the last
	// 64 less likely.
	MinP, RepeatPenalty float32
}

func (g GenerateOptions) c() C.tiller_generate {
	var o C.tiller_generate
	o.size = C.uint32_t(unsafe.Sizeof(o))
	o.max_tokens, o.seed = C.uint32_t(g.MaxTokens), C.uint32_t(g.Seed)
	o.temperature, o.top_p = C.float(g.Temperature), C.float(g.TopP)
	o.min_p, o.repeat_penalty = C.float(g.MinP), C.float(g.RepeatPenalty)
	if g.IgnoreEnd {
		o.ignore_end = 1
	}
	return o
}

// Generation is a generated text. One goroutine at a time.
type Generation struct{ h *handle[C.tiller_generation] }

func newGeneration(status C.tiller_status, out *C.tiller_generation, err *C.tiller_error) (*Generation, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return ownGeneration(out), nil
}

func ownGeneration(out *C.tiller_generation) *Generation {
	return &Generation{own(out, func(p *C.tiller_generation) { C.tiller_generation_free(p) })}
}

// Generate continues a prompt. stream, which may be nil, gets each piece of text; false ends the generation.
func (n *Engine) Generate(prompt string, options GenerateOptions, stream func(string) bool) (*Generation, error) {
	name := cstring(prompt)
	defer free(name)
	return n.generate(name, options.c(), stream)
}

// Answer answers a conversation. What the turns say stays text, whatever control tokens it names.
func (n *Engine) Answer(turns []Message, options GenerateOptions, stream func(string) bool) (*Generation, error) {
	list, done := messages(turns)
	defer done()
	o := options.c()
	o.messages, o.n_messages = list, C.size_t(len(turns))
	return n.generate(nil, o, stream)
}

func (n *Engine) generate(prompt *C.char, o C.tiller_generate, stream func(string) bool) (*Generation, error) {
	defer runtime.KeepAlive(n.h)
	var call C.tiller_stream_fn
	var user unsafe.Pointer
	if stream != nil {
		handle := cgo.NewHandle(stream)
		defer handle.Delete()
		call, user = C.tiller_stream_fn(C.tillerGoStream), newBox(handle)
		defer release(user)
	}
	var out *C.tiller_generation
	var err *C.tiller_error
	status := C.tiller_engine_generate(n.h.c(), prompt, &o, call, user, &out, &err)
	return newGeneration(status, out, err)
}

// Begin reads a prompt and gets ready to generate step by step.
func (n *Engine) Begin(prompt string, options GenerateOptions) (*Generation, error) {
	defer runtime.KeepAlive(n.h)
	name := cstring(prompt)
	defer free(name)
	o := options.c()
	var out *C.tiller_generation
	var err *C.tiller_error
	status := C.tiller_engine_begin(n.h.c(), name, &o, &out, &err)
	return newGeneration(status, out, err)
}

// Step generates one token; false when the generation has ended.
func (n *Engine) Step(g *Generation) (bool, error) {
	defer runtime.KeepAlive(n.h)
	defer runtime.KeepAlive(g.h)
	var more C.bool
	var err *C.tiller_error
	e := check(C.tiller_engine_step(n.h.c(), g.h.c(), &more, &err), err)
	return bool(more), e
}

// Close frees the generation early.
func (g *Generation) Close() { g.h.close() }

// Text is what was generated so far.
func (g *Generation) Text() string {
	defer runtime.KeepAlive(g.h)
	return C.GoString(C.tiller_generation_text(g.h.c()))
}

// Tokens are those generated so far, without the end token.
func (g *Generation) Tokens() []int32 {
	defer runtime.KeepAlive(g.h)
	p := g.h.c()
	n := int(C.tiller_generation_n_tokens(p))
	if n == 0 {
		return nil
	}
	return append([]int32(nil), unsafe.Slice((*int32)(unsafe.Pointer(C.tiller_generation_tokens(p))), n)...)
}

// NPrompt is how many tokens the prompt had.
func (g *Generation) NPrompt() int {
	defer runtime.KeepAlive(g.h)
	return int(C.tiller_generation_n_prompt(g.h.c()))
}

// Stop says why it ended: 0 it goes on, 1 the model ended, 2 the length, 3 the caller, 4 the context is full.
func (g *Generation) Stop() int {
	defer runtime.KeepAlive(g.h)
	return int(C.tiller_generation_stop(g.h.c()))
}

// GenerateMany continues every prompt, as many side by side as the engine has sequences.
func (n *Engine) GenerateMany(prompts []string, options GenerateOptions) ([]*Generation, error) {
	defer runtime.KeepAlive(n.h)
	list := newStrings(prompts)
	defer list.free()
	o := options.c()
	places := calloc(C.size_t(len(prompts)+1) * C.size_t(unsafe.Sizeof(uintptr(0))))
	defer release(places)
	out := (**C.tiller_generation)(places)
	var err *C.tiller_error
	status := C.tiller_engine_generate_many(n.h.c(), list.c(), C.size_t(len(list)), &o, out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	var made []*Generation
	for _, p := range unsafe.Slice(out, len(prompts)) {
		made = append(made, ownGeneration(p))
	}
	return made, nil
}

// SearchOptions say how a strength is searched; zero means the default.
type SearchOptions struct {
	Refine                     int
	MaxPerplexity, MinDistinct float64
}

// FoundStrength is what a search found. Factor is 0 if every one broke the text; effects are ratios of steered over
// unsteered.
type FoundStrength struct {
	Factor                     float32
	Trials                     int
	Gain, Perplexity, Distinct float64
}

// FindStrength searches the factor for Plan.Scaled at which the model speaks most of the words, and of the first words of
// matches (may be nil), and stays fluent.
func (n *Engine) FindStrength(
	plan *Plan, dictionaries []Named, words []string, matches *Matches, options SearchOptions, progress Progress,
) (FoundStrength, error) {
	defer runtime.KeepAlive(n.h)
	defer runtime.KeepAlive(plan.h)
	defer runtime.KeepAlive(dictionaries)
	defer runtime.KeepAlive(matches)
	named, giveNamed := lendNamed(dictionaries)
	defer giveNamed()
	list := newStrings(words)
	defer list.free()
	var m *C.tiller_matches
	if matches != nil {
		m = matches.h.c()
	}
	var o C.tiller_search
	o.size, o.refine = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.Refine)
	o.max_perplexity, o.min_distinct = C.double(options.MaxPerplexity), C.double(options.MinDistinct)
	var f C.tiller_found
	f.size = C.uint32_t(unsafe.Sizeof(f))
	lent, giveBack := lend(progress)
	defer giveBack()
	var err *C.tiller_error
	status := C.tiller_engine_find_strength(
		n.h.c(), plan.h.c(), named, C.size_t(len(dictionaries)), list.c(), C.size_t(len(list)), m, &o, lent, &f, &err)
	return FoundStrength{
		float32(f.factor), int(f.n_trials), float64(f.gain), float64(f.perplexity), float64(f.distinct),
	}, check(status, err)
}

// OutputOptions say how features are ranked by what they make the model say; zero means the default.
type OutputOptions struct{ Push, Share float32 }

// Rank gives, of the features that mean the words, those that make the model say them, best first.
func (n *Engine) Rank(
	dictionary *Dictionary, matches *Matches, words []string, nFeatures int, options OutputOptions, progress Progress,
) (*Matches, error) {
	defer runtime.KeepAlive(n.h)
	defer runtime.KeepAlive(dictionary.h)
	defer runtime.KeepAlive(matches.h)
	list := newStrings(words)
	defer list.free()
	var o C.tiller_output
	o.size, o.push, o.share = C.uint32_t(unsafe.Sizeof(o)), C.float(options.Push), C.float(options.Share)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_matches
	var err *C.tiller_error
	status := C.tiller_engine_rank(
		n.h.c(), dictionary.h.c(), matches.h.c(), list.c(), C.size_t(len(list)), C.size_t(nFeatures), &o, lent, &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Matches{own(out, func(p *C.tiller_matches) { C.tiller_matches_free(p) })}, nil
}

// Score is how likely a text was.
type Score struct {
	NTokens         int
	NLL, Perplexity float64
}

func newScore(s *C.tiller_score) Score {
	return Score{int(s.n_tokens), float64(s.nll), float64(s.perplexity)}
}

// Perplexity of a text, read in windows (0: the whole context).
func (n *Engine) Perplexity(s string, window int) (Score, error) {
	defer runtime.KeepAlive(n.h)
	name := cstring(s)
	defer free(name)
	var out C.tiller_score
	out.size = C.uint32_t(unsafe.Sizeof(out))
	var err *C.tiller_error
	e := check(C.tiller_engine_perplexity(n.h.c(), name, C.size_t(window), &out, &err), err)
	return newScore(&out), e
}

// Score scores tokens from a place on, each given those in front of it.
func (n *Engine) Score(list []int32, from int) (Score, error) {
	defer runtime.KeepAlive(n.h)
	var out C.tiller_score
	out.size = C.uint32_t(unsafe.Sizeof(out))
	var err *C.tiller_error
	status := C.tiller_engine_score(
		n.h.c(), tokens(list), C.size_t(len(list)), C.size_t(from), &out, &err)
	return newScore(&out), check(status, err)
}

// HarvestOptions say what is harvested; zero means the default.
type HarvestOptions struct {
	Layers                    []uint32
	MaxTokens                 uint64
	Window, ShardRows         int
	Float32, WithoutEarlyStop bool
	Site                      Site
	CountsAs                  string // another quantization of the running model, as whose rows these are marked
}

// Harvest writes rows of the residual stream for text files into a directory, and says how many rows there are.
func (n *Engine) Harvest(files []string, directory string, options HarvestOptions, progress Progress) (uint64, error) {
	defer runtime.KeepAlive(n.h)
	list, name := newStrings(files), cstring(directory)
	defer list.free()
	defer free(name)
	o := (*C.tiller_harvest)(calloc(C.sizeof_tiller_harvest))
	defer release(unsafe.Pointer(o))
	layers := calloc(C.size_t(len(options.Layers)+1) * 4)
	defer release(layers)
	copy(unsafe.Slice((*uint32)(layers), len(options.Layers)), options.Layers)
	o.size, o.n_layers, o.layers = C.sizeof_tiller_harvest, C.uint32_t(len(options.Layers)), (*C.uint32_t)(layers)
	o.max_tokens, o.window = C.uint64_t(options.MaxTokens), C.uint32_t(options.Window)
	o.shard_rows = C.uint32_t(options.ShardRows)
	o.site = C.uint32_t(options.Site)
	if options.CountsAs != "" {
		o.counts_as = cstring(options.CountsAs)
		defer free(o.counts_as)
	}
	if options.Float32 {
		o.dtype = 1
	}
	if options.WithoutEarlyStop {
		o.without_early_stop = 1
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var rows C.uint64_t
	var err *C.tiller_error
	status := C.tiller_engine_harvest(n.h.c(), list.c(), C.size_t(len(list)), name, o, lent, &rows, &err)
	return uint64(rows), check(status, err)
}

// StreamedOptions say which rows of a text are trained on; zero means the default.
type StreamedOptions struct {
	Layer             uint32
	Site              Site
	Window            int
	MaxTokens, Buffer uint64
	CountsAs          string // another quantization of the running model, as whose rows these count
}

// Train trains a dictionary on text files without storing a row. recipe, threads, checkpoint and metrics are those of
// TrainRecipe.
func (n *Engine) Train(
	files []string, options StreamedOptions, recipe string, threads int, checkpoint, metrics string, progress Progress,
) (*Dictionary, error) {
	defer runtime.KeepAlive(n.h)
	list, settings := newStrings(files), cstring(recipe)
	defer list.free()
	defer free(settings)
	o := (*C.tiller_streamed)(calloc(C.sizeof_tiller_streamed))
	defer release(unsafe.Pointer(o))
	o.size, o.layer, o.site = C.sizeof_tiller_streamed, C.uint32_t(options.Layer), C.uint32_t(options.Site)
	o.window, o.buffer = C.uint32_t(options.Window), C.uint64_t(options.Buffer)
	o.max_tokens = C.uint64_t(options.MaxTokens)
	var paths [3]*C.char
	for i, path := range []string{checkpoint, metrics, options.CountsAs} {
		if path != "" {
			paths[i] = cstring(path)
			defer free(paths[i])
		}
	}
	o.counts_as = paths[2]
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_engine_train(n.h.c(), list.c(), C.size_t(len(list)), o, settings, C.uint32_t(threads),
		paths[0], paths[1], lent, &out, &err)
	return newDictionary(status, out, err)
}

// Learn learns an instruction: features of several layers, and a report. Request and report are JSON:
// tiller_engine_learn() in the header has their keys.
func (n *Engine) Learn(request string, progress Progress) (*Dictionary, string, error) {
	defer runtime.KeepAlive(n.h)
	text := cstring(request)
	defer free(text)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_dictionary
	var report *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_engine_learn(n.h.c(), text, lent, &out, &report, &err)
	defer C.tiller_text_free(report)
	dictionary, failed := newDictionary(status, out, err)
	if failed != nil {
		return nil, "", failed
	}
	return dictionary, C.GoString(C.tiller_text_data(report)), nil
}

// LearnGuard learns a guard, with a report. Request and report are JSON: tiller_engine_guard_learn() in the header has their
// keys.
func (n *Engine) LearnGuard(request string, progress Progress) (*Guard, string, error) {
	defer runtime.KeepAlive(n.h)
	text := cstring(request)
	defer free(text)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_guard
	var report *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_engine_guard_learn(n.h.c(), text, lent, &out, &report, &err)
	defer C.tiller_text_free(report)
	guard, failed := newGuard(status, out, err)
	if failed != nil {
		return nil, "", failed
	}
	return guard, C.GoString(C.tiller_text_data(report)), nil
}

// TestGuard examines a guard and returns a report. Request and report are JSON: tiller_engine_guard_test() in the header has
// their keys.
func (n *Engine) TestGuard(guard *Guard, request string, progress Progress) (string, error) {
	defer runtime.KeepAlive(n.h)
	defer runtime.KeepAlive(guard.h)
	text := cstring(request)
	defer free(text)
	lent, giveBack := lend(progress)
	defer giveBack()
	var report *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_engine_guard_test(n.h.c(), guard.h.c(), text, lent, &report, &err)
	if e := check(status, err); e != nil {
		return "", e
	}
	defer C.tiller_text_free(report)
	return C.GoString(C.tiller_text_data(report)), nil
}

// Watched gives what the monitors of the engine's plan read since the last call, and the verdicts that followed.
func (n *Engine) Watched() (Watched, error) {
	defer runtime.KeepAlive(n.h)
	var out *C.tiller_watched
	var err *C.tiller_error
	status := C.tiller_engine_watched(n.h.c(), &out, &err)
	return newWatched(status, out, err)
}

// Evaluate runs an evaluator and returns its report. Request and report are JSON: tiller_engine_evaluate() in the header has
// their keys.
func (n *Engine) Evaluate(request string, progress Progress) (string, error) {
	defer runtime.KeepAlive(n.h)
	text := cstring(request)
	defer free(text)
	lent, giveBack := lend(progress)
	defer giveBack()
	var report *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_engine_evaluate(n.h.c(), text, lent, &report, &err)
	if failed := check(status, err); failed != nil {
		return "", failed
	}
	defer C.tiller_text_free(report)
	return C.GoString(C.tiller_text_data(report)), nil
}

// Requantize writes a model with other weights; kind is llama.cpp's name, such as "Q8_0".
func Requantize(from, to, kind string, threads int) error {
	a, b, k := cstring(from), cstring(to), cstring(kind)
	defer free(a)
	defer free(b)
	defer free(k)
	var err *C.tiller_error
	return check(C.tiller_requantize(a, b, k, C.uint32_t(threads), &err), err)
}

// LensOptions say how features are explained through the unembedding; zero means the default.
type LensOptions struct{ Mode, Condition, Top, Threads int }

// Explain explains features through the unembedding; from and to are both nil, or the rows of two layers.
func (n *Engine) Explain(
	model *Model, dictionary *Dictionary, vocabulary *Vocabulary, from, to *Activations, options LensOptions,
	progress Progress,
) (*Explanations, error) {
	defer runtime.KeepAlive(n.h)
	defer runtime.KeepAlive(model.h)
	defer runtime.KeepAlive(dictionary.h)
	defer runtime.KeepAlive(vocabulary.h)
	var f, t *C.tiller_activations
	if from != nil {
		defer runtime.KeepAlive(from.h)
		f = from.h.c()
	}
	if to != nil {
		defer runtime.KeepAlive(to.h)
		t = to.h.c()
	}
	var o C.tiller_lens
	o.size, o.mode = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.Mode)
	o.condition, o.top = C.uint32_t(options.Condition), C.uint32_t(options.Top)
	o.threads = C.uint32_t(options.Threads)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_explanations
	var err *C.tiller_error
	status := C.tiller_engine_explain(
		n.h.c(), model.h.c(), dictionary.h.c(), vocabulary.h.c(), f, t, &o, lent, &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return newExplanations(out), nil
}

// SelfTestOptions say how much text a self-test uses; zero means the default.
type SelfTestOptions struct{ MaxTokens, ScoreTokens, Window int }

// SelfTested is what a dictionary does on text; cross-entropies are in nats a token.
type SelfTested struct {
	Quality
	NWarnings                             int
	Clean, Reconstructed, Zero, Recovered float64
}

// SelfTest tests a dictionary on text files.
func (n *Engine) SelfTest(
	dictionary *Dictionary, files []string, options SelfTestOptions, progress Progress,
) (SelfTested, error) {
	defer runtime.KeepAlive(n.h)
	defer runtime.KeepAlive(dictionary.h)
	list := newStrings(files)
	defer list.free()
	o := options.c()
	var t C.tiller_self_tested
	t.size = C.uint32_t(unsafe.Sizeof(t))
	lent, giveBack := lend(progress)
	defer giveBack()
	var err *C.tiller_error
	status := C.tiller_engine_self_test(
		n.h.c(), dictionary.h.c(), list.c(), C.size_t(len(list)), &o, lent, &t, &err)
	return SelfTested{
		Quality{
			uint64(t.n_rows), uint64(t.n_sinks),
			float64(t.l0), float64(t.fvu), float64(t.dead_share), float64(t.mean_norm),
		},
		int(t.n_warnings), float64(t.clean), float64(t.reconstructed), float64(t.zero), float64(t.recovered),
	}, check(status, err)
}

// Diagnose tells whether a dictionary fits the model, on the first few hundred tokens of text files.
func (n *Engine) Diagnose(
	dictionary *Dictionary, files []string, options SelfTestOptions, progress Progress,
) (*Diagnosis, error) {
	defer runtime.KeepAlive(n.h)
	defer runtime.KeepAlive(dictionary.h)
	list := newStrings(files)
	defer list.free()
	o := options.c()
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_diagnosis
	var err *C.tiller_error
	status := C.tiller_engine_diagnose(
		n.h.c(), dictionary.h.c(), list.c(), C.size_t(len(list)), &o, lent, &out, &err)
	return newDiagnosis(status, out, err)
}

// LastRows are the rows of the last tokens of texts at a hook point such as "blocks.19.hook_resid_post".
func (n *Engine) LastRows(texts []string, hook string, progress Progress) ([]float32, error) {
	defer runtime.KeepAlive(n.h)
	list := newStrings(texts)
	defer list.free()
	point := cstring(hook)
	defer free(point)
	lent, giveBack := lend(progress)
	defer giveBack()
	rows := make([]float32, len(texts)*n.DModel())
	var err *C.tiller_error
	status := C.tiller_engine_last_rows(
		n.h.c(), list.c(), C.size_t(len(list)), point, lent, floats(rows), C.size_t(len(rows)), &err)
	return rows, check(status, err)
}

// Concepts are relations between words, read by the model at a hook point. pairs is a file of them, "" for those that come
// along.
func (n *Engine) Concepts(pairs, hook string, progress Progress) (*Concepts, error) {
	defer runtime.KeepAlive(n.h)
	var file *C.char
	if pairs != "" {
		file = cstring(pairs)
		defer free(file)
	}
	point := cstring(hook)
	defer free(point)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_concepts
	var err *C.tiller_error
	status := C.tiller_engine_concepts(n.h.c(), file, point, lent, &out, &err)
	return newConcepts(status, out, err)
}

func (options SelfTestOptions) c() (o C.tiller_self_test) {
	o.size, o.max_tokens = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.MaxTokens)
	o.score_tokens, o.window = C.uint32_t(options.ScoreTokens), C.uint32_t(options.Window)
	return o
}

// Drifted is what one quantization of a model makes of a dictionary; Clean is in nats a token, Changed the share of active
// features that are others than with the first model.
type Drifted struct{ L0, FVU, Clean, Recovered, Changed float64 }

// Drift measures the dictionary on several quantizations of one model; the first is what the others are compared with.
func (d *Dictionary) Drift(
	models, files []string, engine EngineOptions, options SelfTestOptions, progress Progress,
) ([]Drifted, error) {
	defer runtime.KeepAlive(d.h)
	list, texts := newStrings(models), newStrings(files)
	defer list.free()
	defer texts.free()
	o, machine := options.c(), engine.c()
	found := make([]C.tiller_drifted, len(models)+1)
	for i := range found {
		found[i].size = C.uint32_t(unsafe.Sizeof(found[i]))
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var err *C.tiller_error
	status := C.tiller_dictionary_drift(
		d.h.c(), list.c(), C.size_t(len(list)), texts.c(), C.size_t(len(texts)), &machine, &o, lent, &found[0], &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	var all []Drifted
	for _, f := range found[:len(models)] {
		all = append(all, Drifted{
			float64(f.l0), float64(f.fvu), float64(f.clean), float64(f.recovered), float64(f.changed),
		})
	}
	return all, nil
}
