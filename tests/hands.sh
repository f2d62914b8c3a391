#!/usr/bin/env bash
# hands.sh [BUILD...]: one libtiller, built without an engine, in llama.cpp of other hands. Each BUILD writes greedy
# tokens of SmolLM2 under a plan of clamps and a control vector twice, seeing ggml through tiller_llama.h and through
# the probe: the tokens must be the same, and others than unsteered ones. A BUILD is
#
#     ggml-sys          the static llama.cpp that `cargo build --release` has compiled
#     node:VERSION      npm's @node-llama-cpp/linux-x64: shared libraries; the headers are in node-llama-cpp
#     python:VERSION    PyPI's llama-cpp-python, which is compiled here (0.2.78 is of mid-2024, 0.3.7 of early 2025)
#
# and by default all three, of one version each. HANDS_WORK is where packages are kept (default: TARGET/hands). Packages
# that cannot be had are SKIPPED. Ends with a line `N passed, N failed, N skipped`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
. examples/setup.sh
target=$(target_dir)
work=${HANDS_WORK:-$target/hands}
mkdir -p "$work"
work=$(cd "$work" && pwd)
[ $# -gt 0 ] || set -- ggml-sys node:3.22.1 python:0.3.36

prompt="57 3514 288 260 2342 284 10897" # "I went to the market and bought"
n_tokens=40
passed=0 failed=0 skipped=0 first=
# What a function below found: directories of headers, libraries to link, a directory of backends to load.
headers=() link=() backends=

# same A B: how many tokens two lists share from their start.
same() { paste -d' ' <(tr ' ' '\n' <<<"$1") <(tr ' ' '\n' <<<"$2") | awk '$1 != $2 {exit} {n++} END {print n + 0}'; }

# shared DIRECTORY: links the libraries of llama.cpp in it.
shared() {
    local file name
    link=(-Wl,-rpath,"$1" -L"$1")
    for file in "$1"/lib*.so*; do
        name=$(basename "$file")
        case $name in
        libllama.* | libggml.* | libggml-base.so* | libggml-cpu.so*) link+=("-l:$name") ;;
        esac
    done
}

ggml_sys() {
    local built
    built=$(ls -td "$target"/release/build/llama-cpp-sys-2-*/out/lib/libllama.a 2>/dev/null | head -n 1)
    [ -n "$built" ] || { why="cargo build --release has not run"; return 1; }
    headers=("${built%/lib/libllama.a}/include")
    link=(-L"${built%/libllama.a}" -lllama -lggml -lggml-cpu -lggml-base -rdynamic)
}

node() {
    local version=$1 package at=$work/node-$1
    mkdir -p "$at"
    for package in @node-llama-cpp/linux-x64 node-llama-cpp; do
        [ -d "$at/$package" ] && continue
        why="npm cannot fetch $package $version"
        (cd "$at" && npm pack --ignore-scripts --silent "$package@$version" >"$at/name") || return 1
        mkdir -p "$at/$package.part"
        tar -xzf "$at/$(tail -n 1 "$at/name")" -C "$at/$package.part"
        mv "$at/$package.part" "$at/$package"
    done
    why="node-llama-cpp $version has no source of llama.cpp"
    [ -d "$at/llama.cpp" ] || git -c advice.detachedHead=false -c init.defaultBranch=main clone -q "$at/node-llama-cpp/package/llama/gitRelease.bundle" "$at/llama.cpp" || return 1
    headers=("$at/llama.cpp/include" "$at/llama.cpp/ggml/include")
    backends=$(dirname "$(find "$at/@node-llama-cpp" -name 'libllama.*' | head -n 1)")
    shared "$backends"
}

python() {
    local version=$1 at=$work/python-$1 off
    local pip=(python3 -m pip -q --disable-pip-version-check) package=llama-cpp-python==$1
    mkdir -p "$at"
    if [ ! -d "$at/source" ]; then
        why="pip cannot fetch $package"
        "${pip[@]}" download --no-deps --no-binary :all: -d "$at" "$package" || return 1
        mkdir -p "$at/source.part"
        tar -xzf "$at"/llama_cpp_python-*.tar.gz -C "$at/source.part" --strip-components 1
        mv "$at/source.part" "$at/source"
    fi
    if [ ! -d "$at/wheel" ]; then
        why="$package does not build: $at/log"
        say "building $package (minutes; log in $at/log)"
        off=$(printf -- '-D%s=OFF ' LLAVA_BUILD MTMD_BUILD LLAMA_BUILD_{COMMON,TOOLS,EXAMPLES,TESTS,SERVER} LLAMA_CURL GGML_OPENMP)
        CMAKE_ARGS="$off${CMAKE_ARGS:-}" python3 -m pip wheel -v --no-deps -w "$at" "$at"/llama_cpp_python-*.tar.gz \
            >"$at/log" 2>&1 </dev/null || return 1
        mkdir -p "$at/wheel.part"
        python3 -m zipfile -e "$at"/llama_cpp_python-*.whl "$at/wheel.part"
        mv "$at/wheel.part" "$at/wheel"
    fi
    headers=("$at/source/vendor/llama.cpp"{,/include,/ggml/include})
    shared "$(dirname "$(find "$at/wheel/llama_cpp" -name 'libllama.so*' | head -n 1)")"
}

# check NAME: compiles hands.c against what was found, and runs it.
check() {
    local name=$1 program=$work/program-${1//:/-} how include=() age=()
    local -A tokens counts
    include=("${headers[@]/#/-I}")
    grep -qs llama_model_load_from_file "${headers[@]/%//llama.h}" || age=(-DMID_2024)
    "${CC:-cc}" -std=c11 -O1 -Wall -Wextra -Werror -Iinclude "${include[@]}" "${age[@]}" -c tests/hands.c -o "$program.o" || return 1
    "${CXX:-c++}" "$program.o" "${link[@]}" "$library" -Wl,-rpath,"${library%/*}" -lpthread -ldl -lm -o "$program" || return 1
    for how in plain shim probe; do
        # shellcheck disable=SC2086
        HANDS_BACKENDS=$backends "$program" "$how" "$model" examples/smollm2-135m-l19.gguf "$work/plan.json" "$n_tokens" $prompt \
            >"$program.$how" || return 1
        tokens[$how]=$(head -n 1 "$program.$how") counts[$how]=$(tail -n 1 "$program.$how")
    done
    first=${first:-${tokens[shim]}}
    printf '        unsteered %s\n        steered   %s\n' "${tokens[plain]}" "${tokens[shim]}"
    printf '        %s; %d of %d tokens as the first build\n' "${counts[shim]}" "$(same "${tokens[shim]}" "$first")" "$n_tokens"
    [ "${tokens[shim]} ${counts[shim]}" = "${tokens[probe]} ${counts[probe]}" ] ||
        { printf '        the probe  %s\n        %s\n' "${tokens[probe]}" "${counts[probe]}"; return 1; }
    [ "${tokens[shim]}" != "${tokens[plain]}" ]
}

say "libtiller without an engine"
cargo build --release --locked --lib --no-default-features --target-dir "$target/guest" --quiet
library=$(cd "$target/guest/release" && pwd)/libtiller.so
model=${TILLER_TEST_MODELS:+$TILLER_TEST_MODELS/SmolLM2-135M-Instruct.Q4_1.gguf}
if [ ! -f "$model" ]; then
    printf 'SKIPPED %s: no SmolLM2-135M-Instruct.Q4_1.gguf in TILLER_TEST_MODELS\n' "$@"
    printf '\n0 passed, 0 failed, %d skipped\n' $#
    exit 0
fi
cat >"$work/plan.json" <<'END'
{"version": 1, "rules": [
  {"op": "add", "features": [55], "strength": 6, "layer": 12},
  {"op": "min_clamp", "features": [1640, 3218, 4563], "strength": 60}
]}
END

for build; do
    headers=() link=() backends=''
    find=${build%%:*}
    if ! "${find//-/_}" "${build#*:}"; then
        printf 'SKIPPED %s: %s\n' "$build" "$why"
        skipped=$((skipped + 1))
    elif check "$build"; then
        printf 'ok      %s\n' "$build"
        passed=$((passed + 1))
    else
        printf 'FAILED  %s\n' "$build"
        failed=$((failed + 1))
    fi
done
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
