#!/usr/bin/env bash
# gpu.sh: what needs an NVIDIA GPU, in less than ten minutes. Builds with CUDA for the first GPU's architecture, runs
# tests/devices.rs (the same rows are steered as on the processor, to the same tokens), measures what the hook costs,
# trains a small dictionary on rows that come from the GPU, and steers by it. Without a GPU or CUDA's compiler it says
# that it did not run. Models are those in TILLER_TEST_MODELS, else they are fetched. Ends with a line
# `N passed, N failed, N skipped`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
. examples/setup.sh

limit=600
passed=0 failed=0
PATH=$PATH:${CUDA_PATH:-/usr/local/cuda}/bin

skip() {
    printf 'SKIPPED gpu.sh did not run: %s\n\n0 passed, 0 failed, 1 skipped\n' "$1"
    exit 0
}

# step NAME COMMAND...: one check, in what is left of the time.
step() {
    local name=$1 log=$logs/$1.log started=$SECONDS left=$((limit > SECONDS ? limit - SECONDS : 1))
    shift
    if timeout "$left" "$@" >"$log" 2>&1 </dev/null && ! grep -q '^SKIPPED' "$log"; then
        passed=$((passed + 1))
        printf 'ok      %-12s %4d s\n' "$name" $((SECONDS - started))
    else
        failed=$((failed + 1))
        printf 'FAILED  %-12s %4d s, %s\n' "$name" $((SECONDS - started)) "$log"
    fi
}

have nvidia-smi || skip "no NVIDIA GPU (nvidia-smi)"
architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ') || true
[[ $architecture =~ ^[0-9]+$ ]] || skip "nvidia-smi finds no GPU"
have nvcc || skip "no CUDA compiler (nvcc)"

ensure_rust
export CMAKE_CUDA_ARCHITECTURES=$architecture CARGO_TERM_COLOR=never
CARGO_TARGET_DIR=$(target_dir)/cuda
export CARGO_TARGET_DIR
logs=$CARGO_TARGET_DIR/gpu
tiller=$CARGO_TARGET_DIR/release/tiller
mkdir -p "$logs"

say "CUDA for compute capability $architecture (log in $logs)"
step "build" cargo build --release --locked --features cuda --bin tiller --test devices
if [ "$failed" != 0 ]; then
    tail -n 40 "$logs/build.log"
    printf '\n0 passed, 1 failed, 0 skipped\n'
    exit 1
fi
model=${TILLER_TEST_MODELS:+$TILLER_TEST_MODELS/SmolLM2-135M-Instruct.Q4_1.gguf}
[ -n "$model" ] || model=$("$tiller" fetch smollm2)
TILLER_TEST_MODELS=$(dirname "$model")
export TILLER_TEST_MODELS

step "parity" cargo test --release --locked --features cuda --test devices -- --nocapture
step "overhead" "$tiller" bench --what overhead --model "$model" --gpu-layers 99 --pairs 30
step "train" "$tiller" train sae --model "$model" --gpu-layers 99 --layer 19 --variant topk \
    --text README.md examples/*.md benches/*.md --features 1024 --k 32 --epochs 1 --out "$logs/dictionary.gguf"
echo '{"version": 1, "rules": [{"op": "min_clamp", "features": [1, 2, 3], "strength": 4}]}' >"$logs/plan.json"
step "steer" "$tiller" run "$model" --gpu-layers 99 --dictionary "$logs/dictionary.gguf" --plan "$logs/plan.json" \
    --prompt "The most important thing is" --max-tokens 40
for log in parity overhead train steer; do tail -n 25 "$logs/$log.log"; done

printf '\n%d passed, %d failed, 0 skipped\n' "$passed" "$failed"
[ "$failed" = 0 ]
