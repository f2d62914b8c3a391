//go:build !tiller_gc

package tiller

func maybeGC() {}
