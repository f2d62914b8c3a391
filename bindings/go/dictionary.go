package tiller

// #include <stdlib.h>
// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Dictionary is a dictionary of features. Safe for concurrent use.
type Dictionary struct{ h *handle[C.tiller_dictionary] }

func newDictionary(status C.tiller_status, out *C.tiller_dictionary, err *C.tiller_error) (*Dictionary, error) {
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Dictionary{own(out, func(p *C.tiller_dictionary) { C.tiller_dictionary_free(p) })}, nil
}

// OpenDictionary opens one of our GGUF files, or the directory or file of another program.
func OpenDictionary(file string) (*Dictionary, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_dictionary_open(name, &out, &err)
	return newDictionary(status, out, err)
}

// OpenDictionaryAs opens a dictionary of a known family, such as "saelens" or "gemma_scope"; "" tells it by the contents.
// Files that cannot be used as they lie are converted once into the directory cache, unless that is "".
func OpenDictionaryAs(file, family, cache string) (*Dictionary, error) {
	name := cstring(file)
	defer free(name)
	var kind, directory *C.char
	if family != "" {
		kind = cstring(family)
		defer free(kind)
	}
	if cache != "" {
		directory = cstring(cache)
		defer free(directory)
	}
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_dictionary_open_as(name, kind, directory, &out, &err)
	return newDictionary(status, out, err)
}

// Parts are the weights of a dictionary in memory; matrices are row-major, one row a feature. Nil slices are left out.
type Parts struct {
	Activation                                      uint32 // 0 ReLU, 1 TopK, 2 BatchTopK, 3 JumpReLU, 4 gated, 5 GroupMax
	DModel, NFeatures, K                            int
	Encoder, Decoder                                []float32
	EncoderBias, DecoderBias, Threshold             []float32
	GateBias, GateLogScale                          []float32
	Stats                                           []Stats
	KeepDecoderBias                                 bool
	Layer                                           int // negative: unknown
	Name, ModelName, ModelFingerprint, Hook, Recipe string
}

// Stats is what a feature did on data.
type Stats struct{ Density, Max, Mean float32 }

// NewDictionary makes a dictionary from weights in memory.
func NewDictionary(parts Parts) (*Dictionary, error) {
	for _, x := range []struct {
		found, want int
		what        string
	}{
		{len(parts.Encoder), parts.NFeatures * parts.DModel, "Encoder"},
		{len(parts.Decoder), parts.NFeatures * parts.DModel, "Decoder"},
		{len(parts.EncoderBias), parts.NFeatures, "EncoderBias"},
		{len(parts.DecoderBias), parts.DModel, "DecoderBias"},
		{len(parts.Threshold), parts.NFeatures, "Threshold"},
		{len(parts.GateBias), parts.NFeatures, "GateBias"},
		{len(parts.GateLogScale), parts.NFeatures, "GateLogScale"},
		{len(parts.Stats), parts.NFeatures, "Stats"},
	} {
		if x.found != 0 && x.found != x.want {
			return nil, &Error{EArgument, x.what + " has the wrong length", ""}
		}
	}
	// The struct lives in C, because it holds pointers: to C's memory, copied here for the call.
	p := (*C.tiller_dictionary_parts)(C.calloc(1, C.sizeof_tiller_dictionary_parts))
	held := []unsafe.Pointer{unsafe.Pointer(p)}
	defer func() {
		for _, m := range held {
			C.free(m)
		}
	}()
	copyFloats := func(x []float32) *C.float {
		if len(x) == 0 {
			return nil
		}
		m := C.malloc(C.size_t(len(x)) * 4)
		held = append(held, m)
		copy(unsafe.Slice((*float32)(m), len(x)), x)
		return (*C.float)(m)
	}
	copyString := func(s string) *C.char {
		c := cstring(s)
		held = append(held, unsafe.Pointer(c))
		return c
	}
	p.size = C.sizeof_tiller_dictionary_parts
	p.activation = C.uint32_t(parts.Activation)
	p.d_model, p.n_features, p.k = C.uint64_t(parts.DModel), C.uint64_t(parts.NFeatures), C.uint64_t(parts.K)
	p.encoder, p.decoder = copyFloats(parts.Encoder), copyFloats(parts.Decoder)
	p.encoder_bias, p.decoder_bias = copyFloats(parts.EncoderBias), copyFloats(parts.DecoderBias)
	p.threshold = copyFloats(parts.Threshold)
	p.gate_bias, p.gate_log_scale = copyFloats(parts.GateBias), copyFloats(parts.GateLogScale)
	var stats []float32
	for _, s := range parts.Stats {
		stats = append(stats, s.Density, s.Max, s.Mean)
	}
	p.stats = (*C.tiller_stats)(unsafe.Pointer(copyFloats(stats)))
	if parts.KeepDecoderBias {
		p.keep_decoder_bias = 1
	}
	if parts.Layer >= 0 {
		p.has_layer, p.layer = 1, C.uint32_t(parts.Layer)
	}
	p.name, p.model_name = copyString(parts.Name), copyString(parts.ModelName)
	p.model_fingerprint, p.hook_point = copyString(parts.ModelFingerprint), copyString(parts.Hook)
	p.recipe = copyString(parts.Recipe)
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_dictionary_new(p, &out, &err)
	return newDictionary(status, out, err)
}

// Close frees the dictionary early. What was made from it stays valid.
func (d *Dictionary) Close() { d.h.close() }

// NFeatures is the number of features.
func (d *Dictionary) NFeatures() int {
	defer runtime.KeepAlive(d.h)
	return int(C.tiller_dictionary_n_features(d.h.c()))
}

// DModel is the width of the residual stream.
func (d *Dictionary) DModel() int {
	defer runtime.KeepAlive(d.h)
	return int(C.tiller_dictionary_d_model(d.h.c()))
}

// DOut is the width of the rows that it writes: DModel but of a few transcoders.
func (d *Dictionary) DOut() int {
	defer runtime.KeepAlive(d.h)
	return int(C.tiller_dictionary_d_out(d.h.c()))
}

// FeatureLayer is the block at whose output a feature lives; negative if unknown.
func (d *Dictionary) FeatureLayer(feature uint32) int {
	defer runtime.KeepAlive(d.h)
	return int(C.tiller_dictionary_feature_layer(d.h.c(), C.uint32_t(feature)))
}

// Info is what a dictionary is. Empty strings, a negative layer and a K of 0 say "unknown" or "none".
type Info struct {
	Activation                                                      uint32
	DModel, NFeatures, K, Layer                                     int
	HasStats                                                        bool
	Storage, Name, ModelName, ModelFingerprint, Hook, Recipe, Notes string
	DOut, LayerOut                                                  int
	Transcodes                                                      bool
	HookOut                                                         string
}

// Info says what the dictionary is.
func (d *Dictionary) Info() (Info, error) {
	defer runtime.KeepAlive(d.h)
	var i C.tiller_dictionary_info
	i.size = C.uint32_t(unsafe.Sizeof(i))
	var err *C.tiller_error
	if e := check(C.tiller_dictionary_get_info(d.h.c(), &i, &err), err); e != nil {
		return Info{}, e
	}
	return Info{
		uint32(i.activation), int(i.d_model), int(i.n_features), int(i.k), int(i.layer), i.has_stats != 0,
		C.GoString(i.storage), C.GoString(i.name), C.GoString(i.model_name), C.GoString(i.model_fingerprint),
		C.GoString(i.hook_point), C.GoString(i.recipe), C.GoString(i.notes),
		int(i.d_out), int(i.layer_out), i.transcodes != 0, C.GoString(i.hook_point_out),
	}, nil
}

// Stats is what a feature did on data.
func (d *Dictionary) Stats(feature uint32) (Stats, error) {
	defer runtime.KeepAlive(d.h)
	var s C.tiller_stats
	var err *C.tiller_error
	e := check(C.tiller_dictionary_stats(d.h.c(), C.uint32_t(feature), &s, &err), err)
	return Stats{float32(s.density), float32(s.max), float32(s.mean)}, e
}

// Encode gives the activation of every feature for one row.
func (d *Dictionary) Encode(row []float32) ([]float32, error) {
	defer runtime.KeepAlive(d.h)
	out := make([]float32, d.NFeatures())
	var err *C.tiller_error
	status := C.tiller_dictionary_encode(
		d.h.c(), floats(row), C.size_t(len(row)), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// Code is an active feature.
type Code struct {
	Feature    uint32
	Activation float32
}

// EncodeRows gives the active features of each of many rows, which lie one after the other.
func (d *Dictionary) EncodeRows(rows []float32, threads int) ([][]Code, error) {
	defer runtime.KeepAlive(d.h)
	var out *C.tiller_codes
	var err *C.tiller_error
	status := C.tiller_dictionary_encode_rows(
		d.h.c(), floats(rows), C.size_t(len(rows)), C.uint32_t(threads), &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	defer C.tiller_codes_free(out)
	all := make([][]Code, C.tiller_codes_n_rows(out))
	for i := range all {
		var n C.size_t
		first := C.tiller_codes_row(out, C.size_t(i), &n)
		all[i] = append([]Code{}, unsafe.Slice((*Code)(unsafe.Pointer(first)), int(n))...)
	}
	return all, nil
}

// Decode gives the row that active features stand for.
func (d *Dictionary) Decode(codes []Code) ([]float32, error) {
	defer runtime.KeepAlive(d.h)
	out := make([]float32, d.DOut())
	var first *C.tiller_code
	if len(codes) > 0 {
		first = (*C.tiller_code)(unsafe.Pointer(&codes[0]))
	}
	var err *C.tiller_error
	status := C.tiller_dictionary_decode(
		d.h.c(), first, C.size_t(len(codes)), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// EncoderRow is the encoder row of a feature.
func (d *Dictionary) EncoderRow(feature uint32) ([]float32, error) {
	defer runtime.KeepAlive(d.h)
	out := make([]float32, d.DModel())
	var err *C.tiller_error
	status := C.tiller_dictionary_encoder_row(
		d.h.c(), C.uint32_t(feature), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// DecoderRow is the direction of a feature.
func (d *Dictionary) DecoderRow(feature uint32) ([]float32, error) {
	defer runtime.KeepAlive(d.h)
	out := make([]float32, d.DOut())
	var err *C.tiller_error
	status := C.tiller_dictionary_decoder_row(
		d.h.c(), C.uint32_t(feature), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// Save writes the dictionary; storage is "F32", "F16", "BF16" or "Q8_0".
func (d *Dictionary) Save(file, storage string) error {
	defer runtime.KeepAlive(d.h)
	name, kind := cstring(file), cstring(storage)
	defer free(name)
	defer free(kind)
	var err *C.tiller_error
	return check(C.tiller_dictionary_save(d.h.c(), name, kind, &err), err)
}

// Loss is what a type of storage costs: the cosine between a row and what was stored of it, of the worst row and on average.
type Loss struct{ EncoderMin, EncoderMean, DecoderMin, DecoderMean float32 }

// Convert writes the dictionary as Save does and says what the storage costs.
func (d *Dictionary) Convert(file, storage string) (Loss, error) {
	defer runtime.KeepAlive(d.h)
	name, kind := cstring(file), cstring(storage)
	defer free(name)
	defer free(kind)
	var loss C.tiller_loss
	var err *C.tiller_error
	e := check(C.tiller_dictionary_convert(d.h.c(), name, kind, &loss, &err), err)
	return Loss{
		float32(loss.encoder_min), float32(loss.encoder_mean), float32(loss.decoder_min), float32(loss.decoder_mean),
	}, e
}

// SaveSaelens writes a directory that SAELens loads.
func (d *Dictionary) SaveSaelens(directory string) error {
	defer runtime.KeepAlive(d.h)
	name := cstring(directory)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_dictionary_save_saelens(d.h.c(), name, &err), err)
}

// SaveSparsify writes a directory that sparsify loads; it tells the module by the directory's name.
func (d *Dictionary) SaveSparsify(directory string) error {
	defer runtime.KeepAlive(d.h)
	name := cstring(directory)
	defer free(name)
	var err *C.tiller_error
	return check(C.tiller_dictionary_save_sparsify(d.h.c(), name, &err), err)
}

// Slice takes a few features out, to encode and edit them at the cost of their own rows.
func (d *Dictionary) Slice(features []uint32) (*Slice, error) {
	defer runtime.KeepAlive(d.h)
	var out *C.tiller_slice
	var err *C.tiller_error
	status := C.tiller_dictionary_slice(d.h.c(), numbers(features), C.size_t(len(features)), &out, &err)
	if e := check(status, err); e != nil {
		return nil, e
	}
	return &Slice{own(out, func(p *C.tiller_slice) { C.tiller_slice_free(p) })}, nil
}

// Select gives a dictionary of some of the features, in that order, renumbered from 0.
func (d *Dictionary) Select(features []uint32) (*Dictionary, error) {
	defer runtime.KeepAlive(d.h)
	var out *C.tiller_dictionary
	var err *C.tiller_error
	status := C.tiller_dictionary_select(d.h.c(), numbers(features), C.size_t(len(features)), &out, &err)
	return newDictionary(status, out, err)
}

// Slice is a few features of a dictionary. Safe for concurrent use.
type Slice struct{ h *handle[C.tiller_slice] }

// Close frees the slice early.
func (s *Slice) Close() { s.h.close() }

// Len is the number of features.
func (s *Slice) Len() int {
	defer runtime.KeepAlive(s.h)
	return int(C.tiller_slice_length(s.h.c()))
}

// IsExact says whether Encode gives exactly what the dictionary's gives.
func (s *Slice) IsExact() bool {
	defer runtime.KeepAlive(s.h)
	return bool(C.tiller_slice_is_exact(s.h.c()))
}

// Encode gives the activations of the slice's features for one row.
func (s *Slice) Encode(row []float32) ([]float32, error) {
	defer runtime.KeepAlive(s.h)
	out := make([]float32, s.Len())
	var err *C.tiller_error
	status := C.tiller_slice_encode(
		s.h.c(), floats(row), C.size_t(len(row)), floats(out), C.size_t(len(out)), &err)
	return out, check(status, err)
}

// Edit changes the activations of the slice's features in a row, in place.
func (s *Slice) Edit(deltas, row []float32) error {
	defer runtime.KeepAlive(s.h)
	var err *C.tiller_error
	status := C.tiller_slice_edit(
		s.h.c(), floats(deltas), C.size_t(len(deltas)), floats(row), C.size_t(len(row)), &err)
	return check(status, err)
}
