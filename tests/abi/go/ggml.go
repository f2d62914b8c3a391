package main

// #cgo CFLAGS: -I${SRCDIR}/.. -I${SRCDIR}/../../../include
// #cgo LDFLAGS: -ltiller
// #include <stdlib.h>
// #include "fake_ggml.h"
// static int add_one(void *user, float *data, size_t d_model, const tiller_row *rows, size_t n_rows) {
//     (void) rows;
//     for (size_t i = 0; i < n_rows * d_model; i++) data[i] += 1;
//     return user == NULL;
// }
// static void *add_one_pointer(void) { return (void *) add_one; }
// static void *lookup_pointer(void) { return (void *) fake_lookup; }
import "C"

import (
	"runtime"
	"tiller"
	"unsafe"
)

// newHook makes a hook on the fake ggml.
func newHook() (*tiller.Hook, error) {
	ggml := C.fake_ggml()
	return tiller.NewHook(unsafe.Pointer(&ggml))
}

// probeGgml probes a ggml that lacks a function; without a lookup, if that is "-".
func probeGgml(missing string) error {
	name := C.CString(missing)
	defer C.free(unsafe.Pointer(name))
	lookup := C.lookup_pointer()
	if missing == "-" {
		lookup = nil
	}
	_, err := tiller.ProbeGgml(lookup, unsafe.Pointer(name))
	return err
}

// graph runs a graph through the hook, in memory of C, as a real one would be.
func graph(
	hook *tiller.Hook, context byte, node string, data []float32, dModel int, positions []int32, hidden bool,
) int {
	name := C.CString(node)
	defer C.free(unsafe.Pointer(name))
	rows := C.calloc(C.size_t(len(data)+1), 4)
	defer C.free(rows)
	at := C.calloc(C.size_t(len(positions)+1), 4)
	defer C.free(at)
	copy(unsafe.Slice((*float32)(rows), len(data)), data)
	copy(unsafe.Slice((*int32)(at), len(positions)), positions)
	batch := (*C.struct_fake_batch)(C.calloc(1, C.sizeof_struct_fake_batch))
	defer C.free(unsafe.Pointer(batch))
	batch.context, batch.node, batch.data, batch.d_model = C.char(context), name, (*C.float)(rows), C.size_t(dModel)
	batch.positions, batch.n_rows, batch.hidden = (*C.int32_t)(at), C.size_t(len(positions)), C.bool(hidden)
	_, user := hook.Callback()
	answer := C.fake_decode((*C.tiller_hook)(user), batch)
	runtime.KeepAlive(hook)
	copy(data, unsafe.Slice((*float32)(rows), len(data)))
	return int(answer)
}

// intrusion has a second thread meet the hook in use.
func intrusion(hook *tiller.Hook, point tiller.Point) (answer int, data float32, announced, planned string) {
	in := (*C.struct_fake_intruder)(C.calloc(1, C.sizeof_struct_fake_intruder))
	defer C.free(unsafe.Pointer(in))
	_, user := hook.Callback()
	at := C.tiller_point{C.uint32_t(point.Layer), C.uint32_t(point.Site)}
	status := C.fake_intrusion((*C.tiller_hook)(user), at, in, nil)
	runtime.KeepAlive(hook)
	if status != C.TILLER_OK {
		return -1, 0, "", ""
	}
	name := func(status C.tiller_status) string {
		if status == C.TILLER_OK {
			return "OK"
		}
		return statusNames[tiller.Status(status)]
	}
	return int(in.answer), float32(in.data), name(in.announced), name(in.planned)
}

// patch adds one to every number at a point, or takes that away.
func patch(hook *tiller.Hook, point tiller.Point, on bool) error {
	_, user := hook.Callback()
	if !on {
		return hook.Patch(point, nil, nil)
	}
	return hook.Patch(point, C.add_one_pointer(), user)
}
