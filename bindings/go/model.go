package tiller

// #include "tiller.h"
import "C"

import "runtime"

// Model is a GGUF language model seen from outside. Safe for concurrent use.
type Model struct{ h *handle[C.tiller_model] }

// OpenModel opens a GGUF model; it is mapped, not run.
func OpenModel(file string) (*Model, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_model
	var err *C.tiller_error
	if e := check(C.tiller_model_open(name, &out, &err), err); e != nil {
		return nil, e
	}
	return &Model{own(out, func(p *C.tiller_model) { C.tiller_model_free(p) })}, nil
}

// Close frees the model early.
func (m *Model) Close() { m.h.close() }

// ModelInfo is what a model's file says of it; a token of -1 does not exist.
type ModelInfo struct {
	Architecture, Name, Quantization, Fingerprint string
	NLayer, DModel, NVocab, ContextLength         int
	TiedUnembedding                               bool
	BOS, EOS                                      int32
	AddBOS                                        bool
}

// Info says what the model is.
func (m *Model) Info() ModelInfo {
	defer runtime.KeepAlive(m.h)
	p := m.h.c()
	return ModelInfo{
		C.GoString(C.tiller_model_architecture(p)), C.GoString(C.tiller_model_name(p)),
		C.GoString(C.tiller_model_quantization(p)), C.GoString(C.tiller_model_fingerprint(p)),
		int(C.tiller_model_n_layer(p)), int(C.tiller_model_d_model(p)),
		int(C.tiller_model_n_vocab(p)), int(C.tiller_model_context_length(p)),
		bool(C.tiller_model_tied_unembedding(p)),
		int32(C.tiller_model_bos(p)), int32(C.tiller_model_eos(p)), bool(C.tiller_model_add_bos(p)),
	}
}

// Target is what a plan for it is compiled against.
func (m *Model) Target() (Target, error) {
	defer runtime.KeepAlive(m.h)
	out := C.tiller_target{size: C.sizeof_tiller_target}
	var err *C.tiller_error
	return newTarget(C.tiller_model_target(m.h.c(), &out, &err), &out, err)
}

func newTarget(status C.tiller_status, t *C.tiller_target, err *C.tiller_error) (Target, error) {
	if e := check(status, err); e != nil {
		return Target{}, e
	}
	return Target{int(t.n_layer), int(t.d_model), C.GoString(t.architecture)}, nil
}

// TokenText is the text of a token as the file holds it.
func (m *Model) TokenText(token int32) (string, error) {
	defer runtime.KeepAlive(m.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_model_token_text(m.h.c(), C.int32_t(token), &out, &err)
	return text(status, out, err)
}

// TokenBytes are the bytes that a token adds to a text; they may be a part of a character.
func (m *Model) TokenBytes(token int32) ([]byte, error) {
	defer runtime.KeepAlive(m.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_model_token_bytes(m.h.c(), C.int32_t(token), &out, &err)
	bytes, e := text(status, out, err)
	return []byte(bytes), e
}

// OutputNorm is the weight of the final norm, and what it adds to the mean square.
func (m *Model) OutputNorm() ([]float32, float32, error) {
	defer runtime.KeepAlive(m.h)
	weight := make([]float32, m.Info().DModel)
	var epsilon C.float
	var err *C.tiller_error
	status := C.tiller_model_output_norm(m.h.c(), floats(weight), C.size_t(len(weight)), &epsilon, &err)
	return weight, float32(epsilon), check(status, err)
}

// UnembeddingRow is the row of the unembedding for a token.
func (m *Model) UnembeddingRow(token int32) ([]float32, error) {
	defer runtime.KeepAlive(m.h)
	row := make([]float32, m.Info().DModel)
	var err *C.tiller_error
	status := C.tiller_model_unembedding_row(m.h.c(), C.int32_t(token), floats(row), C.size_t(len(row)), &err)
	return row, check(status, err)
}

// Check fails if the dictionary does not belong to the model, and gives a warning, which may be empty.
func (m *Model) Check(d *Dictionary) (string, error) {
	defer runtime.KeepAlive(m.h)
	defer runtime.KeepAlive(d.h)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_model_check(m.h.c(), d.h.c(), &out, &err)
	return text(status, out, err)
}
