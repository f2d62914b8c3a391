package tiller

// #include "tiller.h"
import "C"

import "runtime"

// Activations are harvested rows of a residual stream. Safe for concurrent use.
type Activations struct{ h *handle[C.tiller_activations] }

// OpenActivations opens a directory of shards.
func OpenActivations(directory string) (*Activations, error) {
	name := cstring(directory)
	defer free(name)
	var out *C.tiller_activations
	var err *C.tiller_error
	if e := check(C.tiller_activations_open(name, &out, &err), err); e != nil {
		return nil, e
	}
	return &Activations{own(out, func(p *C.tiller_activations) { C.tiller_activations_free(p) })}, nil
}

// Close frees them early.
func (a *Activations) Close() { a.h.close() }

// ActivationsInfo is what a directory says of its rows.
type ActivationsInfo struct {
	NRows, DModel, Layer int
	Model, Fingerprint   string
	Complete             bool
}

// Info says what the rows are.
func (a *Activations) Info() ActivationsInfo {
	defer runtime.KeepAlive(a.h)
	p := a.h.c()
	return ActivationsInfo{
		int(C.tiller_activations_n_rows(p)), int(C.tiller_activations_d_model(p)), int(C.tiller_activations_layer(p)),
		C.GoString(C.tiller_activations_model(p)), C.GoString(C.tiller_activations_fingerprint(p)),
		bool(C.tiller_activations_complete(p)),
	}
}

// Row is row i, its token, and its position in its window.
func (a *Activations) Row(i int) (row []float32, token, position int32, e error) {
	defer runtime.KeepAlive(a.h)
	row = make([]float32, a.Info().DModel)
	var t, p C.int32_t
	var err *C.tiller_error
	status := C.tiller_activations_row(
		a.h.c(), C.size_t(i), floats(row), C.size_t(len(row)), &t, &p, &err)
	return row, int32(t), int32(p), check(status, err)
}
