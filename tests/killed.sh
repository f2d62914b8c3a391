#!/usr/bin/env bash
# killed.sh MODEL.gguf TEXT [ROUNDS]: each long command, killed with `kill -9` at ROUNDS (10) random moments, as process 1 of a
# PID namespace each time, as in a container; then it is let end, and what it leaves has to be equal, to the byte, to what a
# run that nobody killed has left. Then two writers at once into one place: one ends, the other is told who holds the lock.
#
# An adoption measures time and so leaves other bytes each time: there it counts that it ends. Needs `unshare` and the right
# to use it. TILLER is the command (default: the release build's). Ends with a line `N passed, N failed`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. examples/setup.sh
tiller=${TILLER:-$(target_dir)/release/tiller}
[ $# -ge 2 ] || die "killed.sh MODEL.gguf TEXT [ROUNDS]"
model=$1 text=$2 rounds=${3:-10}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
RANDOM=7

verdict() { # verdict NAME OK DETAIL
    if [ "$2" = 0 ]; then passed=$((passed + 1)) word=ok; else failed=$((failed + 1)) word=FAILED; fi
    printf '%-7s %-10s %s\n' "$word" "$1" "$3"
}

# killed_at SECONDS COMMAND...: process 1 of a namespace, killed after SECONDS. Status 0 if it had ended by itself.
killed_at() {
    local id seconds=$1
    shift
    unshare --pid --fork --kill-child=KILL --mount-proc "$@" >"$work/out" 2>&1 </dev/null &
    id=$!
    sleep "$seconds"
    if kill -9 "$id" 2>/dev/null; then
        wait "$id" 2>/dev/null || true
        # The namespace ends after its parent: its lock goes with it.
        sleep 0.5
        return 1
    fi
    wait "$id" || { cat "$work/out"; return 1; }
}

# rounds NAME KEPT FUNCTION: FUNCTION PLACE prints the command, an argument a line, that writes into PLACE. KEPT is `same` where
# the bytes have to be those of a run that was not killed.
try() {
    local name=$1 kept=$2 made=$3 whole=$work/$1.whole place=$work/$1.killed start n ended=0 command
    mkdir -p "$whole" "$place"
    mapfile -t command < <("$made" "$whole")
    start=$(date +%s%N)
    if ! "${command[@]}" >"$work/out" 2>&1 </dev/null; then cat "$work/out"; verdict "$name" 1 "did not end"; return; fi
    local took=$((($(date +%s%N) - start) / 1000000))
    mapfile -t command < <("$made" "$place")
    for ((n = 0; n < rounds; n++)); do
        # Most moments lie in what is left of the work, whatever has been kept.
        local ms=$((took * (RANDOM % 1000) / 2500))
        if killed_at "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))" "${command[@]}"; then ended=$((ended + 1)); fi
    done
    if ! "${command[@]}" >"$work/out" 2>&1 </dev/null && ! grep -q 'is complete\|nothing to do' "$work/out"; then
        cat "$work/out"
        verdict "$name" 1 "did not go on"
        return
    fi
    local different=0
    if [ "$kept" = same ]; then
        diff -rq -x '.*' "$whole" "$place" >"$work/diff" || different=1
        [ "$different" = 0 ] || cat "$work/diff"
    fi
    verdict "$name" "$different" "$((took / 1000)).$((took % 1000 / 100)) s, killed $((rounds - ended)) times, ended $ended times, $kept"
}

words() { printf '%s\n' "$@"; }
harvest() {
    words "$tiller" harvest "$model" --text "$text" --layer 9,19 --context 256 --batch 256 --max-tokens 12000 --threads 1 \
        --out "$1/rows" --resume
}
sae() {
    words "$tiller" train sae "$work/harvest.whole/rows/layer-19" --features 1024 --epochs 3 --threads 1 --out "$1/sae.gguf" \
        --checkpoint "$1/.sae.checkpoint"
}
stream() {
    words "$tiller" train sae --model "$model" --text "$text" --layer 9 --features 512 --max-tokens 8000 --threads 1 \
        --out "$1/stream.gguf" --checkpoint "$1/.stream.checkpoint"
}
conca() {
    words "$tiller" train conca "$work/harvest.whole/rows/layer-19" --latents 512 --steps 60 --threads 1 \
        --out "$1/conca.safetensors" --checkpoint "$1/.conca.checkpoint"
}
explain() {
    words "$tiller" explain "$work/sae.whole/sae.gguf" --model "$model" --rows "$work/harvest.whole/rows/layer-19" --threads 1 \
        --out "$1/explanations.jsonl"
}
convert() { words "$tiller" convert "$work/sae.whole/sae.gguf" --quant q8_0 --out "$1/small.gguf"; }
drift() {
    words "$tiller" eval drift "$model" --dictionary "$work/sae.whole/sae.gguf" --types Q8_0 --models "$1" --max-tokens 500 \
        --threads 1
}
learn() {
    words "$tiller" learn "$model" "Talk about the sea." --answers 8 --max-tokens 16 --threads 1 --out "$1/sea.gguf"
}
adoption() {
    words "$tiller" adopt "$model" --minutes 3 --text "$text" --threads 1 --out "$1/adopted"
}

all=(harvest:same sae:same stream:same conca:same explain:same convert:same drift:same learn:same adoption:ends)
for entry in ${KILLED:-"${all[@]}"}; do try "${entry%:*}" "${entry#*:}" "${entry%:*}"; done

# Two writers.
for made in harvest adoption; do
    mkdir -p "$work/two"
    mapfile -t command < <("$made" "$work/two")
    "${command[@]}" >"$work/first" 2>&1 </dev/null & first=$!
    sleep 1.5
    status=0
    "${command[@]}" >"$work/second" 2>&1 </dev/null || status=$?
    wait "$first" && other=0 || other=$?
    [ "$status" != 0 ] && [ "$other" = 0 ] && grep -q "$first" "$work/second" && told=0 || told=1
    verdict "two $made" "$told" "$(grep -m 1 error "$work/second" || true)"
    rm -rf "$work/two"
done
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
