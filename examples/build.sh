#!/usr/bin/env bash
# build.sh [OUT [TARGET]]: compiles steer.c, steer.cpp and the Go program into OUT (default: TARGET/examples), against the
# release library in TARGET (default: target; build it with `cargo build --release` first).
#
# The C and C++ programs own a llama.cpp: here the headers and static libraries that cargo built for the engine, but any
# other would do (set LLAMA_INCLUDE and LLAMA_LIB). Its symbols stay inside the programs, as tiller's stay inside libtiller,
# so the two never meet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${2:-${CARGO_TARGET_DIR:-target}}
out=${1:-$target/examples}
library=$(cd "$target/release" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ -z "${LLAMA_LIB:-}" ]; then
    # The newest build of llama.cpp, if there are several.
    newest=$(ls -td "$library"/build/llama-cpp-sys-2-*/out/lib/libllama.a | head -n 1)
    LLAMA_LIB=${newest%/libllama.a} LLAMA_INCLUDE=${newest%/lib/libllama.a}/include
fi
include=(-Iinclude -I"$LLAMA_INCLUDE")
llama=(-L"$LLAMA_LIB" -lllama -lggml -lggml-cpu -lggml-base)
link=(-L"$library" -ltiller -Wl,-rpath,"$library" -Wl,--exclude-libs,ALL -lpthread -ldl -lm)

object=$(mktemp)
trap 'rm -f "$object"' EXIT
"${CC:-cc}" -std=c11 -O2 -Wall -Wextra "${include[@]}" -c examples/steer.c -o "$object"
"${CXX:-c++}" "$object" -o "$out/steer-c" "${llama[@]}" "${link[@]}"
"${CXX:-c++}" -std=c++17 -O2 -Wall -Wextra "${include[@]}" examples/steer.cpp -o "$out/steer-cpp" "${llama[@]}" "${link[@]}"
if command -v go >/dev/null 2>&1; then
    (cd examples/go && CGO_LDFLAGS="-L$library -Wl,-rpath,$library" go build -o "$out/steer-go" .)
fi
echo "$out"
