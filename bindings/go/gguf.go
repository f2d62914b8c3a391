package tiller

// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// GGUF is a GGUF file. Safe for concurrent use.
type GGUF struct{ h *handle[C.tiller_gguf] }

// OpenGGUF opens a GGUF file.
func OpenGGUF(file string) (*GGUF, error) {
	name := cstring(file)
	defer free(name)
	var out *C.tiller_gguf
	var err *C.tiller_error
	if e := check(C.tiller_gguf_open(name, &out, &err), err); e != nil {
		return nil, e
	}
	return &GGUF{own(out, func(p *C.tiller_gguf) { C.tiller_gguf_free(p) })}, nil
}

// Close frees the file early.
func (g *GGUF) Close() { g.h.close() }

// Keys are the metadata keys, in the order of the file.
func (g *GGUF) Keys() []string {
	defer runtime.KeepAlive(g.h)
	p := g.h.c()
	keys := make([]string, C.tiller_gguf_n_keys(p))
	for i := range keys {
		keys[i] = C.GoString(C.tiller_gguf_key(p, C.size_t(i)))
	}
	return keys
}

// Value is the value of a key, as JSON.
func (g *GGUF) Value(key string) (string, error) {
	defer runtime.KeepAlive(g.h)
	name := cstring(key)
	defer free(name)
	var out *C.tiller_text
	var err *C.tiller_error
	status := C.tiller_gguf_value(g.h.c(), name, &out, &err)
	return text(status, out, err)
}

// Tensor is a tensor of a GGUF file.
type Tensor struct {
	Name  string
	DType uint32
	Shape [4]uint64
	Data  []byte
}

// NTensors is the number of tensors.
func (g *GGUF) NTensors() int {
	defer runtime.KeepAlive(g.h)
	return int(C.tiller_gguf_n_tensors(g.h.c()))
}

// Tensor copies the i-th tensor.
func (g *GGUF) Tensor(i int) (Tensor, error) {
	defer runtime.KeepAlive(g.h)
	var t C.tiller_tensor
	t.size = C.uint32_t(unsafe.Sizeof(t))
	var err *C.tiller_error
	if e := check(C.tiller_gguf_tensor(g.h.c(), C.size_t(i), &t, &err), err); e != nil {
		return Tensor{}, e
	}
	shape := [4]uint64{uint64(t.shape[0]), uint64(t.shape[1]), uint64(t.shape[2]), uint64(t.shape[3])}
	data := append([]byte(nil), unsafe.Slice((*byte)(t.data), int(t.n_bytes))...)
	return Tensor{C.GoString(t.name), uint32(t.dtype), shape, data}, nil
}
