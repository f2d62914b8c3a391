package tiller

// #include <stdlib.h>
// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Guard is a plan with monitors, and the features that it uses, in two files.
type Guard struct{ h *handle[C.tiller_guard] }

func newGuard(status C.tiller_status, out *C.tiller_guard, err *C.tiller_error) (*Guard, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Guard{own(out, func(p *C.tiller_guard) { C.tiller_guard_free(p) })}, nil
}

// OpenGuard opens a guard's plan and the features beside it.
func OpenGuard(file string) (*Guard, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_guard
	var err *C.tiller_error
	status := C.tiller_guard_open(name, &out, &err)
	return newGuard(status, out, err)
}

// Close frees the guard early.
func (g *Guard) Close() { g.h.close() }

// Save writes the plan to a file and the features beside it.
func (g *Guard) Save(file string) error {
	defer runtime.KeepAlive(g.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_guard_save(g.h.c(), name, &err), err)
}

// CheckModel fails unless the guard was learned from this model, or another quantization of it.
func (g *Guard) CheckModel(model *Model) error {
	defer runtime.KeepAlive(g.h)
	defer runtime.KeepAlive(model.h)
	var err *C.tiller_error
	return check(C.tiller_guard_check_model(g.h.c(), model.h.c(), &err), err)
}

// Compile resolves the guard's plan for a model. All of it goes to the callback.
func (g *Guard) Compile(target Target) (*Compiled, error) {
	defer runtime.KeepAlive(g.h)
	given := C.tiller_target{n_layer: C.uint32_t(target.NLayer), d_model: C.size_t(target.DModel)}
	given.size, given.architecture = C.sizeof_tiller_target, cstring(target.Architecture)
	defer C.free(unsafe.Pointer(given.architecture))
	var out *C.tiller_compiled
	var err *C.tiller_error
	if e := check(C.tiller_guard_compile(g.h.c(), &given, &out, &err), err); e != nil {
		return nil, e
	}
	return &Compiled{own(out, func(p *C.tiller_compiled) { C.tiller_compiled_free(p) })}, nil
}

// Reading is what a monitor read on a row.
type Reading struct {
	Monitor   int    // its place in the plan
	Name      string // its name
	Sequence  int32
	Position  int32
	Generated int     // 1 the model wrote the row's token, 0 it was given, -1 nobody said
	Value     float32 // the mean over its features
	Fired     bool    // the value reaches the threshold
}

// VerdictAction is what a host should do.
type VerdictAction uint32

// What a host should do.
const (
	ReportVerdict VerdictAction = iota // nothing
	StopAnswer                         // end the answer
	ReplaceAnswer                      // end it and put the verdict's text in its place
)

// Verdict is a verdict at a row.
type Verdict struct {
	Name     string
	Action   VerdictAction
	Sequence int32
	Position int32
	Text     string
}

// Watched is what a plan's monitors read, and the verdicts that followed. Lost counts what was not kept.
type Watched struct {
	Readings []Reading
	Verdicts []Verdict
	Lost     uint64
}

// newWatched copies the C object into Go and frees it.
func newWatched(status C.tiller_status, c *C.tiller_watched, err *C.tiller_error) (w Watched, e error) {
	if e = check(status, err); e != nil {
		return w, e
	}
	defer C.tiller_watched_free(c)
	for i := C.size_t(0); i < C.tiller_watched_n_readings(c); i++ {
		var r C.tiller_reading
		r.size = C.uint32_t(unsafe.Sizeof(r))
		if e = check(C.tiller_watched_reading(c, i, &r, &err), err); e != nil {
			return w, e
		}
		w.Readings = append(w.Readings, Reading{int(r.monitor), C.GoString(r.name), int32(r.sequence),
			int32(r.position), int(r.generated), float32(r.value), r.fired != 0})
	}
	for i := C.size_t(0); i < C.tiller_watched_n_verdicts(c); i++ {
		var v C.tiller_verdict
		v.size = C.uint32_t(unsafe.Sizeof(v))
		if e = check(C.tiller_watched_verdict(c, i, &v, &err), err); e != nil {
			return w, e
		}
		w.Verdicts = append(w.Verdicts, Verdict{
			C.GoString(v.name), VerdictAction(v.action), int32(v.sequence), int32(v.position), C.GoString(v.text)})
	}
	w.Lost = uint64(C.tiller_watched_lost(c))
	return w, nil
}

// Watched gives what the monitors of the hook's plan read since the last call, and the verdicts that followed.
func (k *Hook) Watched() (Watched, error) {
	defer runtime.KeepAlive(k.h)
	var out *C.tiller_watched
	var err *C.tiller_error
	status := C.tiller_hook_watched(k.h.c(), &out, &err)
	return newWatched(status, out, err)
}
