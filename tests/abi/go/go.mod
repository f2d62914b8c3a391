module conformance

go 1.19

require tiller v0.0.0

replace tiller => ../../../bindings/go
