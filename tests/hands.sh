#!/usr/bin/env bash
# hands.sh [BUILD...]: one libtiller, built without an engine, in llama.cpp of other hands. Each BUILD writes greedy
# tokens of SmolLM2 under a plan of clamps and a control vector twice, seeing ggml through tiller_llama.h and through
# the probe: the tokens must be the same, and others than unsteered ones. A BUILD is
#
#     ggml-sys          the static llama.cpp that `cargo build --release` has compiled
#     node:VERSION      npm's @node-llama-cpp/linux-x64: shared libraries; the headers are in node-llama-cpp
#     python:VERSION    PyPI's llama-cpp-python, which is compiled here (0.2.78 is of mid-2024, 0.3.7 of early 2025)
#
# or one in which rows lie in a device's memory, where tests/backends.c compares with the processor alone:
#
#     rpc:VERSION       node's, with ggml's RPC backend and its server compiled beside it: two devices of a local server
#     vulkan:VERSION    npm's @node-llama-cpp/linux-x64-vulkan; a device in software will do (Debian: mesa-vulkan-drivers)
#
# and by default all of them, of one version each. HANDS_WORK is where packages are kept (default: TARGET/hands). Packages
# and devices that cannot be had are SKIPPED. Ends with a line `N passed, N failed, N skipped`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
. examples/setup.sh
target=$(target_dir)
work=${HANDS_WORK:-$target/hands}
mkdir -p "$work"
work=$(cd "$work" && pwd)
[ $# -gt 0 ] || set -- ggml-sys node:3.22.1 python:0.3.36 rpc:3.22.1 vulkan:3.22.1

prompt="57 3514 288 260 2342 284 10897" # "I went to the market and bought"
n_tokens=40
passed=0 failed=0 skipped=0 first=
# What a function below found: directories of headers, libraries to link, a directory of backends to load.
headers=() link=() backends='' source=''
# What to run there, on how many more tokens than the prompt's, and an RPC server.
test=hands server='' server_id='' n_more=0
trap 'stop' EXIT

stop() {
    [ -z "$server_id" ] || kill "$server_id" 2>/dev/null || true
    server_id=''
}

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

# npm VERSION NAME: llama.cpp's libraries in @node-llama-cpp/NAME, and its source.
npm_package() {
    local version=$1 name=@node-llama-cpp/$2 package at=$work/node-$1
    mkdir -p "$at"
    for package in "$name" node-llama-cpp; do
        [ -d "$at/$package" ] && continue
        why="npm cannot fetch $package $version"
        (cd "$at" && npm pack --ignore-scripts --silent "$package@$version" >"$at/name") || return 1
        mkdir -p "$at/$package.part"
        tar -xzf "$at/$(tail -n 1 "$at/name")" -C "$at/$package.part"
        mv "$at/$package.part" "$at/$package"
    done
    why="node-llama-cpp $version has no source of llama.cpp"
    source=$at/llama.cpp
    [ -d "$source" ] || git -c advice.detachedHead=false -c init.defaultBranch=main clone -q "$at/node-llama-cpp/package/llama/gitRelease.bundle" "$source" || return 1
    headers=("$source/include" "$source/ggml/include")
    backends=$(dirname "$(find "$at/$name" -name 'libllama.*' | head -n 1)")
    shared "$backends"
}

node() { npm_package "$1" linux-x64; }

vulkan() {
    npm_package "$1" linux-x64-vulkan || return 1
    test=backends n_more=7
    # Devices in software are not offered without the first, and too slow for many rows.
    export GGML_VK_VISIBLE_DEVICES=${GGML_VK_VISIBLE_DEVICES:-0} GGML_OP_OFFLOAD_MIN_BATCH=4
}

rpc() {
    npm_package "$1" linux-x64 || return 1
    local ggml=$source/ggml at=$work/rpc-$1 port=$((20000 + RANDOM % 20000))
    local compile=("${CXX:-c++}" -std=c++17 -O1 -I"$ggml/include" -I"$ggml/src" -Wl,-rpath,"$backends")
    mkdir -p "$at"
    why="ggml's RPC backend does not build: $at/log"
    "${compile[@]}" -fPIC -shared -DGGML_BACKEND_{DL,BUILD,SHARED} -DGGML_SHARED "$ggml"/src/ggml-rpc/{ggml-rpc,transport}.cpp \
        "${link[@]}" -o "$at/libggml-rpc.so" >"$at/log" 2>&1 || return 1
    "${compile[@]}" "$source/tools/rpc/rpc-server.cpp" "${link[@]}" -o "$at/rpc-server" >"$at/log" 2>&1 || return 1
    export GGML_BACKEND_PATH=$at/libggml-rpc.so
    (cd "$backends" && exec "$at/rpc-server" --host 127.0.0.1 --port "$port" --threads 1 --device CPU,CPU) >"$at/log" 2>&1 </dev/null &
    server_id=$!
    why="the RPC server does not answer: $at/log"
    for _ in $(seq 100); do
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
        kill -0 "$server_id" 2>/dev/null || return 1
        sleep 0.2
    done
    test=backends n_more=33 server=127.0.0.1:$port
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

# built NAME: compiles the test against what was found.
built() {
    local include=("${headers[@]/#/-I}") age=()
    program=$work/program-${1//:/-}
    grep -qs llama_model_load_from_file "${headers[@]/%//llama.h}" || age=(-DMID_2024)
    "${CC:-cc}" -std=c11 -O1 -Wall -Wextra -Werror -Iinclude "${include[@]}" "${age[@]}" -c "tests/$test.c" -o "$program.o" || return 1
    "${CXX:-c++}" "$program.o" "${link[@]}" "$library" -Wl,-rpath,"${library%/*}" -lpthread -ldl -lm -o "$program"
}

# backends: rows in a device's memory. 77: there is no device.
backends() {
    # shellcheck disable=SC2046,SC2086
    "$program" "$model" examples/smollm2-135m-l19.gguf "$backends" "$server" $prompt $(seq 300 $((299 + n_more)))
}

# hands: the same tokens through the shim and the probe, and others than unsteered ones.
hands() {
    local how
    local -A tokens counts
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
    headers=() link=() backends='' test=hands server='' status=0
    unset GGML_BACKEND_PATH GGML_OP_OFFLOAD_MIN_BATCH
    find=${build%%:*}
    if ! "${find//-/_}" "${build#*:}"; then
        status=77
    else
        why="no device"
        { built "$build" && "$test"; } || status=$?
    fi
    case $status in
    0) passed=$((passed + 1)) && printf 'ok      %s\n' "$build" ;;
    77) skipped=$((skipped + 1)) && printf 'SKIPPED %s: %s\n' "$build" "$why" ;;
    *) failed=$((failed + 1)) && printf 'FAILED  %s\n' "$build" ;;
    esac
    stop
done
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
