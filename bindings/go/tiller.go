// Package tiller steers what a quantized language model says, by features that people can read.
//
// It is tiller.h in Go: every type owns one handle of the library. Close frees it early; otherwise the garbage collector
// does. What tiller.h says of life, threads and units holds here word for word.
//
// The library is found through CGO_LDFLAGS, such as -L/path/to/target/release, and at run time as any shared library is.
// Build with -tags tiller_gc to run the garbage collector before every handle is used: then a handle that was freed too
// early crashes in tests instead of once a month.
package tiller

// #cgo CFLAGS: -I${SRCDIR}/../../include -DTILLER_ENGINE
// #cgo LDFLAGS: -ltiller
// #include <stdlib.h>
// #include "tiller.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Status is what a caller branches on.
type Status int

// The statuses of failed calls.
const (
	EArgument    Status = C.TILLER_E_ARGUMENT
	EIO          Status = C.TILLER_E_IO
	EFormat      Status = C.TILLER_E_FORMAT
	EUnsupported Status = C.TILLER_E_UNSUPPORTED
	EMismatch    Status = C.TILLER_E_MISMATCH
	ENumeric     Status = C.TILLER_E_NUMERIC
	ECancelled   Status = C.TILLER_E_CANCELLED
	EPanic       Status = C.TILLER_E_PANIC
)

// Error is a failed call.
type Error struct {
	Status  Status
	Message string
	Hint    string // what to do about it; "" where the message says all
}

func (e *Error) Error() string { return e.Message }

// check copies the C error into Go and frees it.
func check(status C.tiller_status, err *C.tiller_error) error {
	if status == C.TILLER_OK {
		return nil
	}
	defer C.tiller_error_free(err)
	return &Error{Status(C.tiller_error_status(err)), C.GoString(C.tiller_error_message(err)), C.GoString(C.tiller_error_hint(err))}
}

// Version is the version of the library that runs.
func Version() string { return C.GoString(C.tiller_version()) }

// HasEngine says whether the library was built with its own llama.cpp.
func HasEngine() bool { return bool(C.tiller_has_engine()) }

// text copies a text into Go and frees it.
func text(status C.tiller_status, t *C.tiller_text, err *C.tiller_error) (string, error) {
	if e := check(status, err); e != nil {
		return "", e
	}
	defer C.tiller_text_free(t)
	return C.GoStringN(C.tiller_text_data(t), C.int(C.tiller_text_length(t))), nil
}

// handle frees what it owns when Go has forgotten it. Every method that uses the pointer must keep its receiver alive
// until C is done with it.
type handle[T any] struct {
	p    *T
	free func(*T)
}

// own gives a fresh handle to the garbage collector.
func own[T any](p *T, free func(*T)) *handle[T] {
	h := &handle[T]{p, free}
	runtime.SetFinalizer(h, (*handle[T]).close)
	return h
}

// close frees the handle; closing twice is a no-op.
func (h *handle[T]) close() {
	if h != nil && h.p != nil {
		h.free(h.p)
		h.p = nil
	}
}

// c is the pointer for one call.
func (h *handle[T]) c() *T {
	if h == nil {
		return nil
	}
	p := h.p
	maybeGC()
	return p
}

// cstring copies a string to C; the caller frees it.
func cstring(s string) *C.char { return C.CString(s) }

func free(p *C.char) { C.free(unsafe.Pointer(p)) }

// cstrings copies strings to C.
type cstrings []*C.char

func newStrings(list []string) cstrings {
	all := make(cstrings, len(list))
	for i, s := range list {
		all[i] = cstring(s)
	}
	return all
}

func (s cstrings) free() {
	for _, p := range s {
		free(p)
	}
}

func (s cstrings) c() **C.char {
	if len(s) == 0 {
		return nil
	}
	return &s[0]
}

func floats(x []float32) *C.float {
	if len(x) == 0 {
		return nil
	}
	return (*C.float)(unsafe.Pointer(&x[0]))
}

func numbers(x []uint32) *C.uint32_t {
	if len(x) == 0 {
		return nil
	}
	return (*C.uint32_t)(unsafe.Pointer(&x[0]))
}

func tokens(x []int32) *C.int32_t {
	if len(x) == 0 {
		return nil
	}
	return (*C.int32_t)(unsafe.Pointer(&x[0]))
}
