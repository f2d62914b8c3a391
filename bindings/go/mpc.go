package tiller

// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Concepts are relations between words: the rows of words without and with each, and a regression's log-odds for them.
type Concepts struct{ h *handle[C.tiller_concepts] }

func newConcepts(status C.tiller_status, out *C.tiller_concepts, err *C.tiller_error) (*Concepts, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Concepts{own(out, func(p *C.tiller_concepts) { C.tiller_concepts_free(p) })}, nil
}

// NewConcepts holds none yet, of rows of width dModel.
func NewConcepts(dModel int) (*Concepts, error) {
	var out *C.tiller_concepts
	var err *C.tiller_error
	status := C.tiller_concepts_new(C.size_t(dModel), &out, &err)
	return newConcepts(status, out, err)
}

// Add adds a concept: whole rows, one a word, and for each word whether it has the concept.
func (c *Concepts) Add(name string, rows []float32, labels []bool) error {
	defer runtime.KeepAlive(c.h)
	n := cstring(name)
	defer free(n)
	bytes := make([]C.uint8_t, len(labels)+1)
	for i, yes := range labels {
		if yes {
			bytes[i] = 1
		}
	}
	var err *C.tiller_error
	return check(C.tiller_concepts_add(
		c.h.c(), n, floats(rows), C.size_t(len(rows)), &bytes[0], C.size_t(len(labels)), &err), err)
}

// Len is the number of concepts.
func (c *Concepts) Len() int {
	defer runtime.KeepAlive(c.h)
	return int(C.tiller_concepts_length(c.h.c()))
}

// Close frees it early.
func (c *Concepts) Close() { c.h.close() }

// MPC is how well single features say what concepts are; Raw that of the codes as they are, the others those of labels
// dealt anew.
type MPC struct {
	MPC, Raw, Shuffled, ShuffledRaw float64
	Matches                         []ConceptMatch
}

// ConceptMatch is a concept and the feature that it was matched with.
type ConceptMatch struct {
	Name        string
	Feature     uint32
	Correlation float64
}

// MPC matches concepts with the features of the dictionary.
func (d *Dictionary) MPC(concepts *Concepts, threads int, progress Progress) (MPC, error) {
	defer runtime.KeepAlive(d.h)
	defer runtime.KeepAlive(concepts.h)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_mpc
	var err *C.tiller_error
	status := C.tiller_dictionary_mpc(d.h.c(), concepts.h.c(), C.uint32_t(threads), lent, &out, &err)
	return readMPC(status, out, err, concepts.Len())
}

// MPC matches concepts with the codes of the coder.
func (c *Coder) MPC(concepts *Concepts, threads int, progress Progress) (MPC, error) {
	defer runtime.KeepAlive(c.h)
	defer runtime.KeepAlive(concepts.h)
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_mpc
	var err *C.tiller_error
	status := C.tiller_coder_mpc(c.h.c(), concepts.h.c(), C.uint32_t(threads), lent, &out, &err)
	return readMPC(status, out, err, concepts.Len())
}

func readMPC(status C.tiller_status, made *C.tiller_mpc, err *C.tiller_error, n int) (MPC, error) {
	if e := check(status, err); e != nil {
		return MPC{}, e
	}
	defer C.tiller_mpc_free(made)
	var f C.tiller_mpc_figures
	f.size = C.uint32_t(unsafe.Sizeof(f))
	if e := check(C.tiller_mpc_get(made, &f, &err), err); e != nil {
		return MPC{}, e
	}
	all := MPC{float64(f.mpc), float64(f.raw), float64(f.shuffled), float64(f.shuffled_raw), nil}
	for i := 0; i < n; i++ {
		var feature C.uint32_t
		var correlation C.double
		var out *C.tiller_text
		name, e := text(C.tiller_mpc_match(made, C.size_t(i), &feature, &correlation, &out, &err), out, err)
		if e != nil {
			return all, e
		}
		all.Matches = append(all.Matches, ConceptMatch{name, uint32(feature), float64(correlation)})
	}
	return all, nil
}
