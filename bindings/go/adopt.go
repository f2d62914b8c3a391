//go:build !tiller_guest

package tiller

// #include "tiller.h"
import "C"

import "unsafe"

// AdoptOptions say how a model is made steerable; zero means the default.
type AdoptOptions struct {
	Minutes                      float64
	Files                        []string // text to learn from; without any the model writes its own
	Layers                       []uint32
	Features, Threads, GPULayers int
	Keep                         bool // the rows and the trial dictionaries
}

// Adopted is what an adoption made. Gain and Perplexity are medians of steered over unsteered.
type Adopted struct {
	Layer                                         uint32
	Features, Rows                                uint64
	L0, FVU, Recovered, Gain, Perplexity, Seconds float64
	Fits                                          bool
}

// Adopt makes a model file steerable: writes dictionary.gguf, dictionary.jsonl and report.md to a directory. After a
// cancelled call, or a crash, the same call goes on where that one ended.
func Adopt(model, directory string, options AdoptOptions, progress Progress) (Adopted, error) {
	list, from, to := newStrings(options.Files), cstring(model), cstring(directory)
	defer list.free()
	defer free(from)
	defer free(to)
	o := (*C.tiller_adopt_options)(calloc(C.sizeof_tiller_adopt_options))
	defer release(unsafe.Pointer(o))
	layers := calloc(C.size_t(len(options.Layers)+1) * 4)
	defer release(layers)
	copy(unsafe.Slice((*uint32)(layers), len(options.Layers)), options.Layers)
	o.size, o.threads, o.minutes = C.sizeof_tiller_adopt_options, C.uint32_t(options.Threads), C.double(options.Minutes)
	o.files, o.n_files = list.c(), C.size_t(len(list))
	o.layers, o.n_layers = (*C.uint32_t)(layers), C.size_t(len(options.Layers))
	o.n_features, o.gpu_layers = C.uint32_t(options.Features), C.uint32_t(options.GPULayers)
	if options.Keep {
		o.keep = 1
	}
	lent, giveBack := lend(progress)
	defer giveBack()
	var a C.tiller_adopted
	a.size = C.uint32_t(unsafe.Sizeof(a))
	var err *C.tiller_error
	status := C.tiller_adopt(from, to, o, lent, &a, &err)
	return Adopted{
		uint32(a.layer), uint64(a.n_features), uint64(a.n_rows), float64(a.l0), float64(a.fvu), float64(a.recovered),
		float64(a.gain), float64(a.perplexity), float64(a.seconds), a.fits != 0,
	}, check(status, err)
}
