package tiller

// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Temporal says which latent drives which, in the same row and in later ones. Safe for concurrent use.
type Temporal struct{ h *handle[C.tiller_temporal] }

// TemporalOptions say how a temporal model is estimated; zero means the default.
type TemporalOptions struct {
	Lags, NLatents, Epochs, Threads, ICARows, HoldOut int
	Joint                                             bool
	Alpha, Beta, Smallest, Ridge                      float32
	Seed                                              uint64
}

func newTemporal(status C.tiller_status, out *C.tiller_temporal, err *C.tiller_error) (*Temporal, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Temporal{own(out, func(p *C.tiller_temporal) { C.tiller_temporal_free(p) })}, nil
}

// TrainTemporal estimates a temporal model of a dictionary's features, or, if that is nil, of latents of the rows.
// checkpoint is a file from which a cancelled joint estimate goes on; "" for none.
func TrainTemporal(
	rows *Activations, dictionary *Dictionary, options TemporalOptions, checkpoint string, progress Progress,
) (*Temporal, error) {
	defer runtime.KeepAlive(rows.h)
	var on *C.tiller_dictionary
	if dictionary != nil {
		defer runtime.KeepAlive(dictionary.h)
		on = dictionary.h.c()
	}
	var o C.tiller_temporal_options
	o.size, o.lags, o.n_latents = C.uint32_t(unsafe.Sizeof(o)), C.uint32_t(options.Lags), C.uint32_t(options.NLatents)
	o.epochs, o.threads = C.uint32_t(options.Epochs), C.uint32_t(options.Threads)
	o.ica_rows, o.hold_out = C.uint32_t(options.ICARows), C.uint32_t(options.HoldOut)
	o.alpha, o.beta = C.float(options.Alpha), C.float(options.Beta)
	o.smallest, o.ridge, o.seed = C.float(options.Smallest), C.float(options.Ridge), C.uint64_t(options.Seed)
	if options.Joint {
		o.joint = 1
	}
	var file *C.char
	if checkpoint != "" {
		file = cstring(checkpoint)
		defer free(file)
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var out *C.tiller_temporal
	var err *C.tiller_error
	status := C.tiller_temporal_train(rows.h.c(), on, &o, file, lent, &out, &err)
	return newTemporal(status, out, err)
}

// OpenTemporal opens a file that Save wrote.
func OpenTemporal(file string) (*Temporal, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_temporal
	var err *C.tiller_error
	status := C.tiller_temporal_open(name, &out, &err)
	return newTemporal(status, out, err)
}

// Close frees it early.
func (t *Temporal) Close() { t.h.close() }

// Save writes the model as safetensors.
func (t *Temporal) Save(file string) error {
	defer runtime.KeepAlive(t.h)
	name := cstring(file)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_temporal_save(t.h.c(), name, &err), err)
}

// NLatents is the number of latents.
func (t *Temporal) NLatents() int {
	defer runtime.KeepAlive(t.h)
	return int(C.tiller_temporal_n_latents(t.h.c()))
}

// Lags is the number of lags.
func (t *Temporal) Lags() int {
	defer runtime.KeepAlive(t.h)
	return int(C.tiller_temporal_lags(t.h.c()))
}

// DModel is the width of the residual stream that the latents lie in; 0 if that is unknown.
func (t *Temporal) DModel() int {
	defer runtime.KeepAlive(t.h)
	return int(C.tiller_temporal_d_model(t.h.c()))
}

// Features is the feature of the dictionary that each latent is.
func (t *Temporal) Features() ([]uint32, error) {
	defer runtime.KeepAlive(t.h)
	out := make([]uint32, t.NLatents())
	var err *C.tiller_error
	return out, check(C.tiller_temporal_features(t.h.c(), numbers(out), C.size_t(len(out)), &err), err)
}

// Order is the latents in causal order, causes first.
func (t *Temporal) Order() ([]uint32, error) {
	defer runtime.KeepAlive(t.h)
	out := make([]uint32, t.NLatents())
	var err *C.tiller_error
	return out, check(C.tiller_temporal_order(t.h.c(), numbers(out), C.size_t(len(out)), &err), err)
}

// Weights of a lag, row by row: how much of latent j, lag rows before, is in latent i. Lag 0 is M.
func (t *Temporal) Weights(lag int) ([]float32, error) {
	defer runtime.KeepAlive(t.h)
	out := make([]float32, t.NLatents()*t.NLatents())
	var err *C.tiller_error
	status := C.tiller_temporal_weights(t.h.c(), C.uint32_t(lag), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// Deviation is the standard deviation of each latent.
func (t *Temporal) Deviation() ([]float32, error) {
	defer runtime.KeepAlive(t.h)
	out := make([]float32, t.NLatents())
	var err *C.tiller_error
	return out, check(C.tiller_temporal_deviation(t.h.c(), floats(out), C.size_t(len(out)), &err), err)
}

// Response is what follows an edit of a latent by 1: the row itself, then the rows after, NLatents each.
func (t *Temporal) Response(latent, steps int) ([]float32, error) {
	defer runtime.KeepAlive(t.h)
	out := make([]float32, (steps+1)*t.NLatents())
	var err *C.tiller_error
	status := C.tiller_temporal_response(
		t.h.c(), C.uint32_t(latent), C.uint32_t(steps), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// Direction of a latent in the residual stream: alone, or with what it drives in the same row.
func (t *Temporal) Direction(latent int, propagate bool) ([]float32, error) {
	defer runtime.KeepAlive(t.h)
	out := make([]float32, t.DModel())
	var err *C.tiller_error
	status := C.tiller_temporal_direction(
		t.h.c(), C.uint32_t(latent), C.bool(propagate), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// Forecast is how well a temporal model predicts rows: variance explained, mean over latents.
type Forecast struct {
	NRows                                          uint64
	FromPast, FromShuffledPast                     float64
	FromPastAndPresent, FromShuffledPastAndPresent float64
}

// Forecast predicts harvested rows; with holdOut, only the documents that the same number left out in training.
// dictionary is the one that the model is on; nil for a model of rows.
func (t *Temporal) Forecast(rows *Activations, dictionary *Dictionary, holdOut int, progress Progress) (Forecast, error) {
	defer runtime.KeepAlive(t.h)
	defer runtime.KeepAlive(rows.h)
	var on *C.tiller_dictionary
	if dictionary != nil {
		defer runtime.KeepAlive(dictionary.h)
		on = dictionary.h.c()
	}
	var f C.tiller_forecast
	f.size = C.uint32_t(unsafe.Sizeof(f))
	lent, giveBack := lend(progress)
	defer giveBack()
	var err *C.tiller_error
	status := C.tiller_temporal_forecast(t.h.c(), rows.h.c(), on, C.uint32_t(holdOut), lent, &f, &err)
	return Forecast{
		uint64(f.n_rows), float64(f.from_past), float64(f.from_shuffled_past),
		float64(f.from_past_and_present), float64(f.from_shuffled_past_and_present),
	}, check(status, err)
}
