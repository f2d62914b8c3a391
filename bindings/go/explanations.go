package tiller

// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Vocabulary is the words that explanations are made of. Safe for concurrent use.
type Vocabulary struct{ h *handle[C.tiller_vocabulary] }

func newVocabulary(status C.tiller_status, out *C.tiller_vocabulary, err *C.tiller_error) (*Vocabulary, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Vocabulary{own(out, func(p *C.tiller_vocabulary) { C.tiller_vocabulary_free(p) })}, nil
}

// NewVocabulary takes the most frequent words of texts.
func NewVocabulary(texts []string, nWords int) (*Vocabulary, error) {
	list := newStrings(texts)
	defer list.free()
	var out *C.tiller_vocabulary
	var err *C.tiller_error
	status := C.tiller_vocabulary_new(list.c(), C.size_t(len(list)), C.size_t(nWords), &out, &err)
	return newVocabulary(status, out, err)
}

// OpenVocabulary reads what Save wrote.
func OpenVocabulary(file string) (*Vocabulary, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_vocabulary
	var err *C.tiller_error
	status := C.tiller_vocabulary_open(name, &out, &err)
	return newVocabulary(status, out, err)
}

// Close frees the vocabulary early.
func (v *Vocabulary) Close() { v.h.close() }

// Len is the number of words.
func (v *Vocabulary) Len() int {
	defer runtime.KeepAlive(v.h)
	return int(C.tiller_vocabulary_n_words(v.h.c()))
}

// Word is the word of a rank, the most frequent one being 0.
func (v *Vocabulary) Word(rank int) (string, error) {
	defer runtime.KeepAlive(v.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_vocabulary_word(v.h.c(), C.size_t(rank), &out, &err)
	return text(status, out, err)
}

// Save writes the words with their counts.
func (v *Vocabulary) Save(file string) error {
	defer runtime.KeepAlive(v.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_vocabulary_save(v.h.c(), name, &err), err)
}

// Explanations are what the features of a dictionary mean, in words. One goroutine at a time.
type Explanations struct {
	h *handle[C.tiller_explanations]
}

// OpenExplanations reads explanations.
func OpenExplanations(file string) (*Explanations, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_explanations
	var err *C.tiller_error
	if e := check(C.tiller_explanations_open(name, &out, &err), err); e != nil {
		return nil, e
	}
	return newExplanations(out), nil
}

func newExplanations(out *C.tiller_explanations) *Explanations {
	return &Explanations{own(out, func(p *C.tiller_explanations) { C.tiller_explanations_free(p) })}
}

// Close frees the explanations early.
func (x *Explanations) Close() { x.h.close() }

// Features are the numbers of the features that have an explanation.
func (x *Explanations) Features() []uint32 {
	defer runtime.KeepAlive(x.h)
	p := x.h.c()
	all := make([]uint32, C.tiller_explanations_length(p))
	for i := range all {
		all[i] = uint32(C.tiller_explanations_feature(p, C.size_t(i)))
	}
	return all
}

// Words are the best words of a feature, parted by spaces.
func (x *Explanations) Words(feature uint32, nWords int) (string, error) {
	defer runtime.KeepAlive(x.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_explanations_words(x.h.c(), C.uint32_t(feature), C.size_t(nWords), &out, &err)
	return text(status, out, err)
}

// JSON is all that is known of a feature.
func (x *Explanations) JSON(feature uint32) (string, error) {
	defer runtime.KeepAlive(x.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_explanations_json(x.h.c(), C.uint32_t(feature), &out, &err)
	return text(status, out, err)
}

// SetLabel gives a feature a label; an empty one takes it away.
func (x *Explanations) SetLabel(feature uint32, label string) error {
	defer runtime.KeepAlive(x.h)
	var name *C.char
	if label != "" {
		name = cstring(label)
		defer free(name)
	}
	var err *C.tiller_error
	return check(C.tiller_explanations_set_label(x.h.c(), C.uint32_t(feature), name, &err), err)
}

// SaveLabels writes the labels as JSONL.
func (x *Explanations) SaveLabels(file string) error {
	defer runtime.KeepAlive(x.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_explanations_save_labels(x.h.c(), name, &err), err)
}

// LoadLabels reads labels, and says how many.
func (x *Explanations) LoadLabels(file string) (int, error) {
	defer runtime.KeepAlive(x.h)
	name := cstring(file)
	defer free(name)
	var n C.size_t
	var err *C.tiller_error
	e := check(C.tiller_explanations_load_labels(x.h.c(), name, &n, &err), err)
	return int(n), e
}

// Save writes the explanations.
func (x *Explanations) Save(file string) error {
	defer runtime.KeepAlive(x.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_explanations_save(x.h.c(), name, &err), err)
}

// UnknownWords are the words of a query that no explanation holds, parted by spaces.
func (x *Explanations) UnknownWords(words []string) (string, error) {
	defer runtime.KeepAlive(x.h)
	list := newStrings(words)
	defer list.free()
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_explanations_unknown_words(x.h.c(), list.c(), C.size_t(len(list)), &out, &err)
	return text(status, out, err)
}

// FindOptions say how to search; zero means the default.
type FindOptions struct{ MaxDensity, Floor float32 }

// Find gives the features that mean all the words, best first.
func (x *Explanations) Find(words []string, nFeatures int, options FindOptions) (*Matches, error) {
	defer runtime.KeepAlive(x.h)
	list := newStrings(words)
	defer list.free()
	var find C.tiller_find
	find.size = C.uint32_t(unsafe.Sizeof(find))
	find.max_density, find.floor = C.float(options.MaxDensity), C.float(options.Floor)
	var out *C.tiller_matches
	var err *C.tiller_error
	status := C.tiller_explanations_find(
		x.h.c(), list.c(), C.size_t(len(list)), C.size_t(nFeatures), &find, &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Matches{own(out, func(p *C.tiller_matches) { C.tiller_matches_free(p) })}, nil
}

// FindLabel gives the features whose label holds a text in any case.
func (x *Explanations) FindLabel(label string, nFeatures int) (*Matches, error) {
	defer runtime.KeepAlive(x.h)
	name := cstring(label)
	defer free(name)
	var out *C.tiller_matches
	var err *C.tiller_error
	status := C.tiller_explanations_find_label(x.h.c(), name, C.size_t(nFeatures), &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Matches{own(out, func(p *C.tiller_matches) { C.tiller_matches_free(p) })}, nil
}

// Matches are features that a search found. Safe for concurrent use.
type Matches struct{ h *handle[C.tiller_matches] }

// Match is one of them. Density and Mean are negative if unknown; Lift is NaN unless Engine.Rank measured it.
type Match struct {
	Feature                            uint32
	Score, Weight, Density, Mean, Lift float32
	Words, Matched, Label              string
}

// Close frees the matches early.
func (m *Matches) Close() { m.h.close() }

// Len is how many were found.
func (m *Matches) Len() int {
	defer runtime.KeepAlive(m.h)
	return int(C.tiller_matches_length(m.h.c()))
}

// At is the i-th match, the best one being 0.
func (m *Matches) At(i int) (Match, error) {
	defer runtime.KeepAlive(m.h)
	var c C.tiller_match
	c.size = C.uint32_t(unsafe.Sizeof(c))
	var err *C.tiller_error
	if e := check(C.tiller_matches_get(m.h.c(), C.size_t(i), &c, &err), err); e != nil {
		return Match{}, e
	}
	return Match{
		uint32(c.feature), float32(c.score), float32(c.weight), float32(c.density), float32(c.mean), float32(c.lift),
		C.GoString(c.words), C.GoString(c.matched), C.GoString(c.label),
	}, nil
}
