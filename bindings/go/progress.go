package tiller

// #include "tiller.h"
// extern int tillerGoProgress(void *user, uint64_t done, uint64_t total, char *note);
// extern int tillerGoStream(void *user, char *piece);
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Progress is called now and then during long work; false cancels it.
type Progress func(done, total uint64, note string) bool

//export tillerGoProgress
func tillerGoProgress(user unsafe.Pointer, done, total C.uint64_t, note *C.char) C.int {
	if (*(*cgo.Handle)(user)).Value().(Progress)(uint64(done), uint64(total), C.GoString(note)) {
		return 0
	}
	return 1
}

// lend makes a progress function callable from C until it is given back.
func lend(progress Progress) (*C.tiller_progress, func()) {
	if progress == nil {
		return nil, func() {}
	}
	handle := cgo.NewHandle(progress)
	user := newBox(handle)
	p := (*C.tiller_progress)(calloc(C.sizeof_tiller_progress))
	p.call, p.user = C.tiller_progress_fn(C.tillerGoProgress), user
	return p, func() {
		release(unsafe.Pointer(p))
		release(user)
		handle.Delete()
	}
}

//export tillerGoStream
func tillerGoStream(user unsafe.Pointer, piece *C.char) C.int {
	if (*(*cgo.Handle)(user)).Value().(func(string) bool)(C.GoString(piece)) {
		return 0
	}
	return 1
}
