package tiller

// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Hook reads and edits the residual stream while your llama.cpp computes. It must outlive the llama context that calls it. Any
// goroutine may call SetPlan and CheckPlan at any time; of the other calls one at a time.
type Hook struct{ h *handle[C.tiller_hook] }

// ProbeGgml is how a hook sees a ggml without its headers, as NewHook takes it. lookup is a C function (a
// tiller_lookup_fn) that gives the function of a name, or NULL; dlsym is one, with the handle of a library as user.
func ProbeGgml(lookup, user unsafe.Pointer) (unsafe.Pointer, error) {
	ggml := new(C.tiller_ggml)
	ggml.size = C.uint32_t(unsafe.Sizeof(*ggml))
	var err *C.tiller_error
	if e := check(C.tiller_ggml_probe(C.tiller_lookup_fn(lookup), user, ggml, &err), err); e != nil {
		return nil, e
	}
	return unsafe.Pointer(ggml), nil
}

// NewHook makes a hook with nothing to do. ggml points to a tiller_ggml, as tiller_llama_ggml() of tiller_llama.h or
// ProbeGgml fills it; it is copied.
func NewHook(ggml unsafe.Pointer) (*Hook, error) {
	var out *C.tiller_hook
	var err *C.tiller_error
	if e := check(C.tiller_hook_new((*C.tiller_ggml)(ggml), &out, &err), err); e != nil {
		return nil, e
	}
	return &Hook{own(out, func(p *C.tiller_hook) { C.tiller_hook_free(p) })}, nil
}

// Close frees the hook early. Free the llama context that calls it first.
func (k *Hook) Close() { k.h.close() }

// Callback is the C function for cb_eval, and what to give as its user data. Keep the hook alive while it is in use.
func (k *Hook) Callback() (eval, user unsafe.Pointer) {
	return unsafe.Pointer(C.tiller_hook_eval), unsafe.Pointer(k.h.c())
}

// SetPlan steers by a plan from the next decode on; nil stops steering.
func (k *Hook) SetPlan(plan *Compiled) error {
	defer runtime.KeepAlive(k.h)
	var p *C.tiller_compiled
	if plan != nil {
		defer runtime.KeepAlive(plan.h)
		p = plan.h.c()
	}
	var err *C.tiller_error
	return check(C.tiller_hook_set_plan(k.h.c(), p, &err), err)
}

// CheckPlan says whether SetPlan would take a plan.
func (k *Hook) CheckPlan(plan *Compiled) error {
	defer runtime.KeepAlive(k.h)
	var p *C.tiller_compiled
	if plan != nil {
		defer runtime.KeepAlive(plan.h)
		p = plan.h.c()
	}
	var err *C.tiller_error
	return check(C.tiller_hook_check_plan(k.h.c(), p, &err), err)
}

// HasControlVector says whether the plan in force has a part that is a control vector.
func (k *Hook) HasControlVector() bool {
	defer runtime.KeepAlive(k.h)
	return bool(C.tiller_hook_has_control_vector(k.h.c()))
}

// Announce says what the next llama_decode() holds; no rows take the last announcement back.
func (k *Hook) Announce(rows []Row) error {
	defer runtime.KeepAlive(k.h)
	list, e := rowList(rows)
	if e != nil {
		return e
	}
	var err *C.tiller_error
	return check(C.tiller_hook_announce(k.h.c(), list, C.size_t(len(rows)), &err), err)
}

// Site is a place in a block.
type Site uint32

// The sites; all but ResidPost need Hook.SetArchitecture.
const (
	ResidPost Site = iota // the residual stream after the block
	ResidPre              // before it
	AttnOut               // what attention adds
	ResidMid              // the residual stream between attention and MLP
	MlpOut                // what the MLP adds
)

// Point is a hook point: a site of a block.
type Point struct {
	Layer uint32
	Site  Site
}

func (p Point) c() C.tiller_point { return C.tiller_point{C.uint32_t(p.Layer), C.uint32_t(p.Site)} }

// SetArchitecture says which architecture's graphs the hook will see, as general.architecture of the GGUF file spells it.
func (k *Hook) SetArchitecture(architecture string) error {
	defer runtime.KeepAlive(k.h)
	name := cstring(architecture)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_hook_set_architecture(k.h.c(), name, &err), err)
}

// SetSequences says for how many sequences the context is made (n_seq_max of its parameters).
func (k *Hook) SetSequences(n int) error {
	defer runtime.KeepAlive(k.h)
	var err *C.tiller_error
	return check(C.tiller_hook_set_sequences(k.h.c(), C.uint32_t(n), &err), err)
}

// Rebind has the hook belong to the next context whose graph it sees.
func (k *Hook) Rebind() error {
	defer runtime.KeepAlive(k.h)
	var err *C.tiller_error
	return check(C.tiller_hook_rebind(k.h.c(), &err), err)
}

// ForgetSequence closes the sequence gates of a sequence.
func (k *Hook) ForgetSequence(sequence int32) error {
	defer runtime.KeepAlive(k.h)
	var err *C.tiller_error
	return check(C.tiller_hook_forget_sequence(k.h.c(), C.int32_t(sequence), &err), err)
}

// Capture copies the rows at these points until told otherwise.
func (k *Hook) Capture(points []Point) error {
	defer runtime.KeepAlive(k.h)
	list := make([]C.tiller_point, len(points)+1)
	for i, p := range points {
		list[i] = p.c()
	}
	var err *C.tiller_error
	return check(C.tiller_hook_capture(k.h.c(), &list[0], C.size_t(len(points)), &err), err)
}

// Captured is rows of one hook point, one after the other, and the token of each.
type Captured struct {
	Data   []float32
	Tokens []Row
}

// Captured takes the rows copied at a point since the last call.
func (k *Hook) Captured(point Point) (Captured, error) {
	defer runtime.KeepAlive(k.h)
	var out *C.tiller_captured
	var err *C.tiller_error
	if e := check(C.tiller_hook_captured(k.h.c(), point.c(), &out, &err), err); e != nil {
		return Captured{}, e
	}
	defer C.tiller_captured_free(out)
	n := int(C.tiller_captured_n_rows(out))
	if n == 0 {
		return Captured{}, nil
	}
	d := int(C.tiller_captured_d_model(out))
	data := unsafe.Slice((*float32)(unsafe.Pointer(C.tiller_captured_data(out))), n*d)
	captured := Captured{Data: append([]float32(nil), data...)}
	for _, row := range unsafe.Slice(C.tiller_captured_tokens(out), n) {
		captured.Tokens = append(captured.Tokens, newRow(&row))
	}
	return captured, nil
}

// Patch lets a C function (a tiller_patch_fn) edit the rows at a point after the plan; nil takes it away.
func (k *Hook) Patch(point Point, patch, user unsafe.Pointer) error {
	defer runtime.KeepAlive(k.h)
	var err *C.tiller_error
	return check(C.tiller_hook_patch(k.h.c(), point.c(), C.tiller_patch_fn(patch), user, &err), err)
}

// StopAfter ends every graph after a layer; -1 lets them run to their end.
func (k *Hook) StopAfter(layer int) error {
	defer runtime.KeepAlive(k.h)
	var err *C.tiller_error
	return check(C.tiller_hook_stop_after(k.h.c(), C.int32_t(layer), &err), err)
}

// Finish gives what was seen and done since the last call, whatever went wrong, and the first fault. Ledger tells all.
func (k *Hook) Finish() (Report, error) {
	defer runtime.KeepAlive(k.h)
	var r C.tiller_report
	r.size = C.uint32_t(unsafe.Sizeof(r))
	var err *C.tiller_error
	status := C.tiller_hook_finish(k.h.c(), &r, &err)
	return newReport(&r), check(status, err)
}

// Ledger is as Finish, with what each rule did and every fault.
func (k *Hook) Ledger() (Ledger, error) {
	defer runtime.KeepAlive(k.h)
	var out *C.tiller_ledger
	var err *C.tiller_error
	status := C.tiller_hook_ledger(k.h.c(), &out, &err)
	return newLedger(status, out, err)
}
