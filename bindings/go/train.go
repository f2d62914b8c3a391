package tiller

// #include <stdlib.h>
// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Variant is which rule keeps codes in training.
type Variant uint32

// Variants.
const (
	BatchTopK Variant = iota
	TopK
	Matryoshka
	ReLU
	PAnneal
	JumpReLU
	Gated
)

// TrainOptions say how a dictionary is trained; zero means the default.
type TrainOptions struct {
	Variant                              Variant
	NFeatures, K, Batch, Epochs, Threads int
	LearningRate                         float32
	Seed                                 uint64
	AuxK, WarmUp, CheckpointEvery        int
	WithoutRevival                       bool
}

// rowHandles lists handles in memory of C, for one call; the caller frees it and keeps rows alive.
func rowHandles(rows []*Activations) **C.tiller_activations {
	list := (**C.tiller_activations)(C.calloc(C.size_t(len(rows)+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	for i, r := range rows {
		unsafe.Slice(list, len(rows))[i] = r.h.c()
	}
	return list
}

// HarvestedVocabulary is the most frequent words of harvested text.
func HarvestedVocabulary(rows []*Activations, model *Model, nWords int) (*Vocabulary, error) {
	defer runtime.KeepAlive(rows)
	defer runtime.KeepAlive(model.h)
	list := rowHandles(rows)
	defer C.free(unsafe.Pointer(list))
	var out *C.tiller_vocabulary
	var err *C.tiller_error
	status := C.tiller_vocabulary_harvested(
		list, C.size_t(len(rows)), model.h.c(), C.size_t(nWords), &out, &err)
	return newVocabulary(status, out, err)
}

// Train trains a dictionary on harvested rows. checkpoint is a file from which a cancelled run goes on; "" for none.
func Train(rows []*Activations, options TrainOptions, checkpoint string, progress Progress) (*Dictionary, error) {
	defer runtime.KeepAlive(rows)
	list := rowHandles(rows)
	defer C.free(unsafe.Pointer(list))
	var o C.tiller_train_options
	o.size, o.variant = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.Variant)
	o.n_features, o.k, o.batch = C.uint32_t(options.NFeatures), C.uint32_t(options.K), C.uint32_t(options.Batch)
	o.epochs, o.threads = C.uint32_t(options.Epochs), C.uint32_t(options.Threads)
	o.lr, o.seed, o.aux_k = C.float(options.LearningRate), C.uint64_t(options.Seed), C.uint32_t(options.AuxK)
	o.warm_up, o.checkpoint_every = C.uint32_t(options.WarmUp), C.uint32_t(options.CheckpointEvery)
	if options.WithoutRevival {
		o.without_revival = 1
	}
	var file *C.char
	if checkpoint != "" {
		file = cstring(checkpoint)
		defer free(file)
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_train(list, C.size_t(len(rows)), &o, file, lent, &out, &err)
	return newDictionary(status, out, err)
}

// TrainRecipe trains a dictionary by a recipe: all settings as JSON, such as the one that a trained dictionary carries.
// checkpoint is a file from which a cancelled run goes on, metrics one to which every step adds a line; "" for none.
func TrainRecipe(
	rows []*Activations, recipe string, threads int, checkpoint, metrics string, progress Progress,
) (*Dictionary, error) {
	defer runtime.KeepAlive(rows)
	list := rowHandles(rows)
	defer C.free(unsafe.Pointer(list))
	settings := cstring(recipe)
	defer free(settings)
	var files [2]*C.char
	for i, path := range []string{checkpoint, metrics} {
		if path != "" {
			files[i] = cstring(path)
			defer free(files[i])
		}
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_train_recipe(
		list, C.size_t(len(rows)), settings, C.uint32_t(threads), files[0], files[1], lent, &out, &err)
	return newDictionary(status, out, err)
}

// TrainMany trains a dictionary for each recipe in one pass over the rows. checkpoints is nil, or has a file for each.
func TrainMany(
	rows []*Activations, recipes []string, threads int, checkpoints []string, progress Progress,
) ([]*Dictionary, error) {
	if len(checkpoints) != 0 && len(checkpoints) != len(recipes) {
		return nil, &Error{EArgument, "TrainMany: expected as many checkpoints as recipes, or none", ""}
	}
	defer runtime.KeepAlive(rows)
	list := rowHandles(rows)
	defer C.free(unsafe.Pointer(list))
	settings, files := newStrings(recipes), newStrings(checkpoints)
	defer settings.free()
	defer files.free()
	lent, giveBack := lend(progress)
	defer giveBack()
	out := make([]*C.tiller_dictionary, len(recipes)+1)
	var err *C.tiller_error
	status := C.tiller_train_many(list, C.size_t(len(rows)), settings.c(), C.size_t(len(recipes)), C.uint32_t(threads),
		files.c(), lent, &out[0], &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	made := make([]*Dictionary, len(recipes))
	for i := range made {
		made[i], _ = newDictionary(status, out[i], nil)
	}
	return made, nil
}

// MeasureOptions say which rows a dictionary is measured on; zero means the default.
type MeasureOptions struct {
	Threads      int
	MaxRows      uint64
	IncludeSinks bool
}

// Quality is how well a dictionary explains rows; attention sinks are counted apart.
type Quality struct {
	NRows, NSinks                uint64
	L0, FVU, DeadShare, MeanNorm float64
}

// Measure measures the dictionary on harvested rows.
func (d *Dictionary) Measure(rows *Activations, options MeasureOptions, progress Progress) (Quality, error) {
	defer runtime.KeepAlive(d.h)
	defer runtime.KeepAlive(rows.h)
	var o C.tiller_measure
	o.size, o.threads = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.Threads)
	o.max_rows = C.uint64_t(options.MaxRows)
	if options.IncludeSinks {
		o.include_sinks = 1
	}
	var q C.tiller_quality
	q.size = C.uint32_t(unsafe.Sizeof(q))
	lent, giveBack := lend(progress)
	defer giveBack()
	var err *C.tiller_error
	e := check(C.tiller_dictionary_measure(d.h.c(), rows.h.c(), &o, lent, &q, &err), err)
	return Quality{
		uint64(q.n_rows), uint64(q.n_sinks),
		float64(q.l0), float64(q.fvu), float64(q.dead_share), float64(q.mean_norm),
	}, e
}

// ExplainOptions say how features are explained by counting; zero means the default.
type ExplainOptions struct {
	Window, Top, MinTogether, Threads int
	MaxRows                           uint64
}

// Explain explains features by counting them and words in harvested text.
func Explain(
	rows []*Activations, model *Model, dictionary *Dictionary, vocabulary *Vocabulary, options ExplainOptions,
	progress Progress,
) (*Explanations, error) {
	defer runtime.KeepAlive(rows)
	defer runtime.KeepAlive(model.h)
	defer runtime.KeepAlive(dictionary.h)
	list := rowHandles(rows)
	defer C.free(unsafe.Pointer(list))
	defer runtime.KeepAlive(vocabulary.h)
	var o C.tiller_explain
	o.size, o.window = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.Window)
	o.max_rows, o.top = C.uint64_t(options.MaxRows), C.uint32_t(options.Top)
	o.min_together, o.threads = C.uint32_t(options.MinTogether), C.uint32_t(options.Threads)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_explanations
	var err *C.tiller_error
	status := C.tiller_explain_data(
		list, C.size_t(len(rows)), model.h.c(), dictionary.h.c(), vocabulary.h.c(), &o, lent, &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return newExplanations(out), nil
}

// ExplainSpans is the baseline: it explains features by the words of the nSpans pieces of text on which each fires most;
// 0 means 20. It returns those, too, a line of JSON each.
func ExplainSpans(
	rows []*Activations, model *Model, dictionary *Dictionary, vocabulary *Vocabulary, nSpans, threads int,
	progress Progress,
) (*Explanations, string, error) {
	defer runtime.KeepAlive(rows)
	defer runtime.KeepAlive(model.h)
	defer runtime.KeepAlive(dictionary.h)
	defer runtime.KeepAlive(vocabulary.h)
	list := rowHandles(rows)
	defer C.free(unsafe.Pointer(list))
	lent, giveBack := lend(progress)
	defer giveBack()
	var spans *C.tiller_text
	var out *C.tiller_explanations
	var err *C.tiller_error
	status := C.tiller_explain_spans(
		list, C.size_t(len(rows)), model.h.c(), dictionary.h.c(), vocabulary.h.c(), C.uint32_t(nSpans),
		C.uint32_t(threads), lent, &spans, &out, &err)
	found, e := text(status, spans, err)
	if e != nil {
		return nil, "", e
	}
	return newExplanations(out), found, nil
}
