package tiller

// #include <stdlib.h>
// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// EncodeFile encodes the rows in a file or a directory of harvested rows into a .npy (dense) or .safetensors (sparse) file;
// name says which array, or is "". It gives the number of rows, and of active features in all of them.
func (d *Dictionary) EncodeFile(rows, name, file string, threads int, progress Progress) (uint64, uint64, error) {
	defer runtime.KeepAlive(d.h)
	from, to := cstring(rows), cstring(file)
	defer free(from)
	defer free(to)
	var array *C.char
	if name != "" {
		array = cstring(name)
		defer free(array)
	}
	var done C.tiller_encoded
	done.size = C.uint32_t(unsafe.Sizeof(done))
	lent, giveBack := lend(progress)
	defer giveBack()
	var err *C.tiller_error
	status := C.tiller_dictionary_encode_file(d.h.c(), from, array, to, C.uint32_t(threads), lent, &done, &err)
	return uint64(done.n_rows), uint64(done.n_active), check(status, err)
}

// DecodeFile decodes the codes in a file to rows in a .npy file, and gives their number; rows are the encoded ones, or "".
func (d *Dictionary) DecodeFile(codes, rows, file string) (uint64, error) {
	defer runtime.KeepAlive(d.h)
	from, to := cstring(codes), cstring(file)
	defer free(from)
	defer free(to)
	var encoded *C.char
	if rows != "" {
		encoded = cstring(rows)
		defer free(encoded)
	}
	var n C.uint64_t
	var err *C.tiller_error
	e := check(C.tiller_dictionary_decode_file(d.h.c(), from, encoded, to, &n, &err), err)
	return uint64(n), e
}

// HookRows are rows of one hook point of a model, none of them of position 0.
type HookRows struct {
	Hook string
	Data []float32
}

// Diagnosis says whether a dictionary fits rows of a model, and if not, what is most likely wrong.
type Diagnosis struct{ h *handle[C.tiller_diagnosis] }

func newDiagnosis(status C.tiller_status, out *C.tiller_diagnosis, err *C.tiller_error) (*Diagnosis, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Diagnosis{own(out, func(p *C.tiller_diagnosis) { C.tiller_diagnosis_free(p) })}, nil
}

// Diagnose tries the dictionary, and what may be wrong with it, on rows of some hook points, its own among them.
func (d *Dictionary) Diagnose(rows []HookRows, threads int, progress Progress) (*Diagnosis, error) {
	defer runtime.KeepAlive(d.h)
	var one C.tiller_hook_rows
	list := unsafe.Slice((*C.tiller_hook_rows)(calloc(C.size_t(len(rows)+1)*C.size_t(unsafe.Sizeof(one)))), len(rows)+1)
	defer release(unsafe.Pointer(&list[0]))
	for i, point := range rows {
		name := cstring(point.Hook)
		defer free(name)
		n := C.size_t(len(point.Data))
		data := calloc((n + 1) * C.size_t(unsafe.Sizeof(float32(0))))
		defer release(data)
		copy(unsafe.Slice((*float32)(data), len(point.Data)), point.Data)
		list[i].hook, list[i].data, list[i].n_data = name, (*C.float)(data), n
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_diagnosis
	var err *C.tiller_error
	status := C.tiller_dictionary_diagnose(
		d.h.c(), &list[0], C.size_t(len(rows)), C.uint32_t(threads), lent, &out, &err)
	return newDiagnosis(status, out, err)
}

// Close frees the diagnosis early.
func (d *Diagnosis) Close() { d.h.close() }

// Diagnosed are a diagnosis' figures; PromisedL0 is 0 if the dictionary's file promises none.
type Diagnosed struct {
	Fits, HasCause      bool
	NTried              int
	L0, PromisedL0, FVU float64
}

// Figures are those of the dictionary as it was given.
func (d *Diagnosis) Figures() (Diagnosed, error) {
	defer runtime.KeepAlive(d.h)
	var found C.tiller_diagnosed
	found.size = C.uint32_t(unsafe.Sizeof(found))
	var err *C.tiller_error
	e := check(C.tiller_diagnosis_get(d.h.c(), &found, &err), err)
	return Diagnosed{
		found.fits != 0, found.has_cause != 0, int(found.n_tried),
		float64(found.l0), float64(found.promised_l0), float64(found.fvu),
	}, e
}

// Verdict is a sentence: that the dictionary fits, or what is most likely wrong.
func (d *Diagnosis) Verdict() (string, error) {
	defer runtime.KeepAlive(d.h)
	var out *C.tiller_text
	var err *C.tiller_error
	return text(C.tiller_diagnosis_verdict(d.h.c(), &out, &err), out, err)
}

// Tried is alternative i, the best one first: what would be right, and the L0 and FVU that it gives.
func (d *Diagnosis) Tried(i int) (words string, l0, fvu float64, e error) {
	defer runtime.KeepAlive(d.h)
	var a, b C.double
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_diagnosis_tried(d.h.c(), C.size_t(i), &a, &b, &out, &err)
	words, e = text(status, out, err)
	return words, float64(a), float64(b), e
}
