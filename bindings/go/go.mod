module tiller

go 1.19
