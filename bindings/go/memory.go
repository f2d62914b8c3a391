package tiller

// #include <stdlib.h>
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// calloc gives zeroed memory of C, for structs that hold pointers.
func calloc(n C.size_t) unsafe.Pointer { return C.calloc(1, n) }

func release(p unsafe.Pointer) { C.free(p) }

// newBox puts a handle where C may keep its address.
func newBox(handle cgo.Handle) unsafe.Pointer {
	p := calloc(C.size_t(unsafe.Sizeof(handle)))
	*(*cgo.Handle)(p) = handle
	return p
}
