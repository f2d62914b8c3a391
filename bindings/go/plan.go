package tiller

// #include <stdlib.h>
// #include "tiller.h"
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// Plan is what to do to the residual stream. Safe for concurrent use.
type Plan struct{ h *handle[C.tiller_plan] }

func newPlan(status C.tiller_status, out *C.tiller_plan, err *C.tiller_error) (*Plan, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Plan{own(out, func(p *C.tiller_plan) { C.tiller_plan_free(p) })}, nil
}

// OpenPlan reads a plan file.
func OpenPlan(file string) (*Plan, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_plan
	var err *C.tiller_error
	status := C.tiller_plan_open(name, &out, &err)
	return newPlan(status, out, err)
}

// ParsePlan reads a plan from JSON text.
func ParsePlan(json string) (*Plan, error) {
	name := cstring(json)
	defer free(name)
	var out *C.tiller_plan
	var err *C.tiller_error
	status := C.tiller_plan_parse(name, &out, &err)
	return newPlan(status, out, err)
}

// Unit is what a strength counts.
type Unit uint32

// Units of strength.
const (
	Raw        Unit = iota // the dictionary's codes
	Activation             // multiples of each feature's mean positive activation
	Norm                   // the norm of the row
)

// PlanFor is the plan of one rule on the features that a search found.
func PlanFor(m *Matches, op string, strength float32, unit Unit, dictionary string) (*Plan, error) {
	defer runtime.KeepAlive(m.h)
	name := cstring(op)
	defer free(name)
	var of *C.char
	if dictionary != "" {
		of = cstring(dictionary)
		defer free(of)
	}
	var out *C.tiller_plan
	var err *C.tiller_error
	status := C.tiller_plan_for(m.h.c(), name, C.float(strength), C.uint32_t(unit), of, &out, &err)
	return newPlan(status, out, err)
}

// Close frees the plan early.
func (p *Plan) Close() { p.h.close() }

// NRules is the number of rules.
func (p *Plan) NRules() int {
	defer runtime.KeepAlive(p.h)
	return int(C.tiller_plan_n_rules(p.h.c()))
}

// JSON is the plan as text.
func (p *Plan) JSON() (string, error) {
	defer runtime.KeepAlive(p.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_plan_json(p.h.c(), &out, &err)
	return text(status, out, err)
}

// Save writes the plan.
func (p *Plan) Save(file string) error {
	defer runtime.KeepAlive(p.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_plan_save(p.h.c(), name, &err), err)
}

// Named is a dictionary under the name by which a plan's rules call it; "" if they name none.
type Named struct {
	Name       string
	Dictionary *Dictionary
}

// Route is which way a plan takes into the graph.
type Route uint32

// Routes.
const (
	Auto Route = iota
	Callback
	ControlVectorOnly
)

// Target is the model that a plan is compiled for. An empty architecture is an unknown one.
type Target struct {
	NLayer, DModel int
	Architecture   string
}

// Compile resolves the plan against dictionaries and a model.
func (p *Plan) Compile(dictionaries []Named, target Target, route Route) (*Compiled, error) {
	defer runtime.KeepAlive(p.h)
	defer runtime.KeepAlive(dictionaries)
	list, giveBack := lendNamed(dictionaries)
	defer giveBack()
	given := C.tiller_target{n_layer: C.uint32_t(target.NLayer), d_model: C.size_t(target.DModel)}
	given.size, given.architecture = C.sizeof_tiller_target, cstring(target.Architecture)
	defer C.free(unsafe.Pointer(given.architecture))
	var out *C.tiller_compiled
	var err *C.tiller_error
	status := C.tiller_plan_compile(
		p.h.c(), list, C.size_t(len(dictionaries)), &given, C.uint32_t(route), &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Compiled{own(out, func(p *C.tiller_compiled) { C.tiller_compiled_free(p) })}, nil
}

// lendNamed puts dictionaries with their names where C finds them; the array lives in C, because it holds pointers.
func lendNamed(dictionaries []Named) (*C.tiller_named, func()) {
	list := (*C.tiller_named)(C.calloc(C.size_t(len(dictionaries)+1), C.sizeof_tiller_named))
	all := unsafe.Slice(list, len(dictionaries))
	for i, d := range dictionaries {
		all[i] = C.tiller_named{cstring(d.Name), d.Dictionary.h.c()}
	}
	return list, func() {
		for _, d := range all {
			C.free(unsafe.Pointer(d.name))
		}
		C.free(unsafe.Pointer(list))
	}
}

// Scaled is a copy with every strength multiplied by a factor.
func (p *Plan) Scaled(factor float32) (*Plan, error) {
	defer runtime.KeepAlive(p.h)
	var out *C.tiller_plan
	var err *C.tiller_error
	status := C.tiller_plan_scaled(p.h.c(), C.float(factor), &out, &err)
	return newPlan(status, out, err)
}

// Compiled is a plan ready for the hot path. Safe for concurrent use.
type Compiled struct{ h *handle[C.tiller_compiled] }

// Close frees it early; hooks and engines that it was given to keep their own reference.
func (c *Compiled) Close() { c.h.close() }

// Fingerprint is equal for plans that do the same.
func (c *Compiled) Fingerprint() string {
	defer runtime.KeepAlive(c.h)
	return C.GoString(C.tiller_compiled_fingerprint(c.h.c()))
}

// Warnings are what a reader of the plan should know, a line each.
func (c *Compiled) Warnings() string {
	defer runtime.KeepAlive(c.h)
	return C.GoString(C.tiller_compiled_warnings(c.h.c()))
}

// NeedsCallback says whether the callback has to be installed.
func (c *Compiled) NeedsCallback() bool {
	defer runtime.KeepAlive(c.h)
	return bool(C.tiller_compiled_needs_callback(c.h.c()))
}

// Check fails if the plan was compiled for a model of other sizes.
func (c *Compiled) Check(nLayer, dModel int) error {
	defer runtime.KeepAlive(c.h)
	var err *C.tiller_error
	return check(C.tiller_compiled_check(c.h.c(), C.size_t(nLayer), C.size_t(dModel), &err), err)
}

// ControlVector is what llama_set_adapter_cvec() takes; empty if there is nothing for it.
func (c *Compiled) ControlVector() ([]float32, error) {
	defer runtime.KeepAlive(c.h)
	data := make([]float32, C.tiller_compiled_control_vector_length(c.h.c()))
	var err *C.tiller_error
	status := C.tiller_compiled_control_vector(c.h.c(), floats(data), C.size_t(len(data)), &err)
	return data, check(status, err)
}

// Phase says whether the model wrote a token.
type Phase uint32

// The phases.
const (
	Prompt       Phase = iota // the token was given
	Generated                 // the model wrote it
	UnknownPhase              // nobody said
)

// Row says which token a row of the residual stream belongs to, as far as that is known.
type Row struct {
	Position  int32   // in its sequences, from 0; -1 where it is not known
	Sequences []int32 // that the token belongs to, ascending, from 0 to 255; none where they are not known
	Phase     Phase
	Token     int32
	HasToken  bool // Token is known
}

func (r Row) c() (C.tiller_row, error) {
	out := C.tiller_row{position: C.int32_t(r.Position), sequence: -1, generated: C.uint32_t(r.Phase), token: C.int32_t(r.Token)}
	if r.HasToken {
		out.has_token = 1
	}
	for _, id := range r.Sequences {
		if id < 0 || id > 255 {
			return out, &Error{EArgument, fmt.Sprintf("sequence %d: expected 0 to 255", id), ""}
		}
		if out.sequence < 0 || C.int32_t(id) < out.sequence {
			out.sequence = C.int32_t(id)
		}
		out.shared[id/64] |= 1 << (id % 64)
	}
	if id := out.sequence; id >= 0 {
		out.shared[id/64] &^= 1 << (id % 64)
	}
	return out, nil
}

func newRow(r *C.tiller_row) Row {
	row := Row{Position: int32(r.position), Phase: Phase(r.generated), Token: int32(r.token), HasToken: r.has_token == 1}
	for id := int32(0); r.sequence >= 0 && id < 256; id++ {
		if id == int32(r.sequence) || r.shared[id/64]>>(id%64)&1 == 1 {
			row.Sequences = append(row.Sequences, id)
		}
	}
	return row
}

func rowList(rows []Row) (*C.tiller_row, error) {
	list := make([]C.tiller_row, len(rows)+1)
	for i, row := range rows {
		var e error
		if list[i], e = row.c(); e != nil {
			return nil, e
		}
	}
	return &list[0], nil
}

// Apply edits rows in place, without a model, and says how many were changed.
func (c *Compiled) Apply(point Point, data []float32, rows []Row) (int, error) {
	defer runtime.KeepAlive(c.h)
	list, e := rowList(rows)
	if e != nil {
		return 0, e
	}
	var n C.uint64_t
	var err *C.tiller_error
	status := C.tiller_compiled_apply(
		c.h.c(), point.c(), floats(data), C.size_t(len(data)), list, C.size_t(len(rows)), &n, &err)
	return int(n), check(status, err)
}

// ControlVector is one constant direction a layer. One goroutine at a time.
type ControlVector struct {
	h *handle[C.tiller_control_vector]
}

func newControlVector(status C.tiller_status, out *C.tiller_control_vector, err *C.tiller_error) (*ControlVector, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &ControlVector{own(out, func(p *C.tiller_control_vector) { C.tiller_control_vector_free(p) })}, nil
}

// NewControlVector makes one without directions.
func NewControlVector(dModel int) (*ControlVector, error) {
	var out *C.tiller_control_vector
	var err *C.tiller_error
	status := C.tiller_control_vector_new(C.size_t(dModel), &out, &err)
	return newControlVector(status, out, err)
}

// OpenControlVector reads a control vector file.
func OpenControlVector(file string) (*ControlVector, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_control_vector
	var err *C.tiller_error
	status := C.tiller_control_vector_open(name, &out, &err)
	return newControlVector(status, out, err)
}

// Close frees it early.
func (v *ControlVector) Close() { v.h.close() }

// DModel is the width of a direction.
func (v *ControlVector) DModel() int {
	defer runtime.KeepAlive(v.h)
	return int(C.tiller_control_vector_d_model(v.h.c()))
}

// Add adds to the direction of a layer from 1.
func (v *ControlVector) Add(layer int, direction []float32) error {
	defer runtime.KeepAlive(v.h)
	var err *C.tiller_error
	status := C.tiller_control_vector_add(
		v.h.c(), C.uint32_t(layer), floats(direction), C.size_t(len(direction)), &err)
	return check(status, err)
}

// Data is what llama_set_adapter_cvec() takes for a model of nLayer blocks.
func (v *ControlVector) Data(nLayer int) ([]float32, error) {
	defer runtime.KeepAlive(v.h)
	n := 0
	if nLayer > 0 {
		n = (nLayer - 1) * v.DModel()
	}
	data := make([]float32, n)
	var err *C.tiller_error
	status := C.tiller_control_vector_data(v.h.c(), C.size_t(nLayer), floats(data), C.size_t(n), &err)
	return data, check(status, err)
}

// Save writes a file that llama.cpp's programs take.
func (v *ControlVector) Save(file, modelHint string) error {
	defer runtime.KeepAlive(v.h)
	name, hint := cstring(file), cstring(modelHint)
	defer free(name)
	defer free(hint)
	var err *C.tiller_error
	return check(C.tiller_control_vector_save(v.h.c(), name, hint, &err), err)
}
