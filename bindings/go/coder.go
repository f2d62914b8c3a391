package tiller

// #include <stdlib.h>
// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Coder has dense codes: ConCA or SSAE. Safe for concurrent use.
type Coder struct{ h *handle[C.tiller_coder] }

func newCoder(status C.tiller_status, out *C.tiller_coder, err *C.tiller_error) (*Coder, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Coder{own(out, func(p *C.tiller_coder) { C.tiller_coder_free(p) })}, nil
}

// CoderOptions say how a coder is trained, as tiller_coder_options in tiller.h; zero means the default.
type CoderOptions struct {
	Objective, Regularizer, Groups, Sparsity uint32
	Dropout, LearningRate, Alpha, Level      float32
	NLatents, Batch, Steps, WarmUp, Threads  int
	Seed                                     uint64
	CheckpointEvery                          int
}

func (options CoderOptions) c() (o C.tiller_coder_options) {
	o.size, o.objective = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.Objective)
	o.regularizer, o.groups = C.uint32_t(options.Regularizer), C.uint32_t(options.Groups)
	o.sparsity, o.dropout = C.uint32_t(options.Sparsity), C.float(options.Dropout)
	o.lr, o.alpha, o.level = C.float(options.LearningRate), C.float(options.Alpha), C.float(options.Level)
	o.n_latents, o.batch = C.uint32_t(options.NLatents), C.uint32_t(options.Batch)
	o.steps, o.warm_up = C.uint32_t(options.Steps), C.uint32_t(options.WarmUp)
	o.threads, o.seed = C.uint32_t(options.Threads), C.uint64_t(options.Seed)
	o.checkpoint_every = C.uint32_t(options.CheckpointEvery)
	return o
}

// TrainCoder trains a coder on harvested rows. checkpoint is a file from which a cancelled run goes on; "" for none.
func TrainCoder(rows []*Activations, options CoderOptions, checkpoint string, progress Progress) (*Coder, error) {
	defer runtime.KeepAlive(rows)
	list := rowHandles(rows)
	defer C.free(unsafe.Pointer(list))
	o := options.c()
	var file *C.char
	if checkpoint != "" {
		file = cstring(checkpoint)
		defer free(file)
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_coder
	var err *C.tiller_error
	status := C.tiller_coder_train(list, C.size_t(len(rows)), &o, file, lent, &out, &err)
	return newCoder(status, out, err)
}

// TrainCoderRows is the same on rows in memory, of width dModel one after another; differences of rows for SSAE.
func TrainCoderRows(
	rows []float32, dModel int, options CoderOptions, checkpoint string, progress Progress,
) (*Coder, error) {
	o := options.c()
	var file *C.char
	if checkpoint != "" {
		file = cstring(checkpoint)
		defer free(file)
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_coder
	var err *C.tiller_error
	status := C.tiller_coder_train_rows(
		floats(rows), C.size_t(len(rows)), C.size_t(dModel), &o, file, lent, &out, &err)
	return newCoder(status, out, err)
}

// OpenCoder reads what Save wrote.
func OpenCoder(file string) (*Coder, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_coder
	var err *C.tiller_error
	status := C.tiller_coder_open(name, &out, &err)
	return newCoder(status, out, err)
}

// Close frees it early.
func (c *Coder) Close() { c.h.close() }

// Save writes the coder as safetensors.
func (c *Coder) Save(file string) error {
	defer runtime.KeepAlive(c.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_coder_save(c.h.c(), name, &err), err)
}

// DModel is the width of the rows.
func (c *Coder) DModel() int {
	defer runtime.KeepAlive(c.h)
	return int(C.tiller_coder_d_model(c.h.c()))
}

// NLatents is the number of codes.
func (c *Coder) NLatents() int {
	defer runtime.KeepAlive(c.h)
	return int(C.tiller_coder_n_latents(c.h.c()))
}

// Encode gives the codes of whole rows; threads 0 means all.
func (c *Coder) Encode(rows []float32, threads int) ([]float32, error) {
	defer runtime.KeepAlive(c.h)
	codes := make([]float32, len(rows)/c.DModel()*c.NLatents())
	var err *C.tiller_error
	status := C.tiller_coder_encode(c.h.c(), floats(rows), C.size_t(len(rows)), C.uint32_t(threads),
		floats(codes), C.size_t(len(codes)), &err)
	return codes, check(status, err)
}

// Decode gives the rows that codes stand for.
func (c *Coder) Decode(codes []float32, threads int) ([]float32, error) {
	defer runtime.KeepAlive(c.h)
	rows := make([]float32, len(codes)/c.NLatents()*c.DModel())
	var err *C.tiller_error
	status := C.tiller_coder_decode(c.h.c(), floats(codes), C.size_t(len(codes)), C.uint32_t(threads),
		floats(rows), C.size_t(len(rows)), &err)
	return rows, check(status, err)
}

// DecoderRow is the direction of a code.
func (c *Coder) DecoderRow(latent int) ([]float32, error) {
	defer runtime.KeepAlive(c.h)
	row := make([]float32, c.DModel())
	var err *C.tiller_error
	status := C.tiller_coder_decoder_row(c.h.c(), C.size_t(latent), floats(row), C.size_t(len(row)), &err)
	return row, check(status, err)
}

// Dictionary has the same decoder, for plans.
func (c *Coder) Dictionary() (*Dictionary, error) {
	defer runtime.KeepAlive(c.h)
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_coder_dictionary(c.h.c(), &out, &err)
	return newDictionary(status, out, err)
}

// DirectionMethod is how a direction between two kinds of rows is found.
type DirectionMethod uint32

// Methods.
const (
	DifferenceOfMeans DirectionMethod = iota
	Contrastive                       // mean of the differences of pairs (CAA)
	PrincipalAxis                     // of the differences as they are (llama.cpp)
	CentredAxis                       // of the differences around their mean (repeng)
)

// Direction tells rows of two kinds apart.
type Direction struct {
	Values                           []float32
	Agreement, Separation, Explained float64
}

// FindDirection finds the direction from negative to positive rows, of width dModel one after another.
func FindDirection(positive, negative []float32, dModel int, method DirectionMethod, threads int) (Direction, error) {
	var report C.tiller_direction_report
	report.size = C.uint32_t(unsafe.Sizeof(report))
	values := make([]float32, dModel)
	var err *C.tiller_error
	status := C.tiller_direction(floats(positive), C.size_t(len(positive)), floats(negative), C.size_t(len(negative)),
		C.size_t(dModel), C.uint32_t(method), C.uint32_t(threads), floats(values), C.size_t(dModel), &report, &err)
	e := check(status, err)
	return Direction{values, float64(report.agreement), float64(report.separation), float64(report.explained)}, e
}

// Probe is a logistic regression on rows. Safe for concurrent use.
type Probe struct{ h *handle[C.tiller_probe] }

func newProbe(status C.tiller_status, out *C.tiller_probe, err *C.tiller_error) (*Probe, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Probe{own(out, func(p *C.tiller_probe) { C.tiller_probe_free(p) })}, nil
}

// ProbeOptions say how a probe is fitted; zero means the default.
type ProbeOptions struct {
	L1         bool
	C          float64
	K, Threads int
	Raw        bool
}

// FitProbe fits a probe to rows of width dModel one after another and a label, 0 or 1, for each.
func FitProbe(rows []float32, dModel int, labels []uint8, options ProbeOptions, progress Progress) (*Probe, error) {
	var o C.tiller_probe_options
	o.size, o.c = C.uint32_t(unsafe.Sizeof(o)), C.double(options.C)
	o.k, o.threads = C.uint32_t(options.K), C.uint32_t(options.Threads)
	if options.L1 {
		o.penalty = 1
	}
	if options.Raw {
		o.raw = 1
	}
	var first *C.uint8_t
	if len(labels) > 0 {
		first = (*C.uint8_t)(unsafe.Pointer(&labels[0]))
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_probe
	var err *C.tiller_error
	status := C.tiller_probe_fit(
		floats(rows), C.size_t(len(rows)), C.size_t(dModel), first, C.size_t(len(labels)), &o, lent, &out, &err)
	return newProbe(status, out, err)
}

// OpenProbe reads what Save wrote.
func OpenProbe(file string) (*Probe, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_probe
	var err *C.tiller_error
	status := C.tiller_probe_open(name, &out, &err)
	return newProbe(status, out, err)
}

// Close frees it early.
func (p *Probe) Close() { p.h.close() }

// Save writes weights and bias as safetensors.
func (p *Probe) Save(file string) error {
	defer runtime.KeepAlive(p.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_probe_save(p.h.c(), name, &err), err)
}

// Bias is the regression's intercept.
func (p *Probe) Bias() float32 {
	defer runtime.KeepAlive(p.h)
	return float32(C.tiller_probe_bias(p.h.c()))
}

// Weights are a direction along which the logit rises fastest.
func (p *Probe) Weights() ([]float32, error) {
	defer runtime.KeepAlive(p.h)
	weights := make([]float32, int(C.tiller_probe_d_model(p.h.c())))
	var err *C.tiller_error
	status := C.tiller_probe_weights(p.h.c(), floats(weights), C.size_t(len(weights)), &err)
	return weights, check(status, err)
}
