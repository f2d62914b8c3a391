#!/usr/bin/env bash
# memory.sh MODEL.gguf DICTIONARY.gguf TEXT: commands under `ulimit -v`, at ten sizes from "cannot start" to "enough" each. What
# counts as good is a result, one error line, or the documented abort of a C++ or Rust allocation that failed (README, Limits);
# any other signal is a failure. Prints a table, and ends with a line `N passed, N failed`. TILLER is the command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. examples/setup.sh
tiller=${TILLER:-$(target_dir)/release/tiller}
[ $# = 3 ] || die "memory.sh MODEL.gguf DICTIONARY.gguf TEXT"
model=$1 dictionary=$2 text=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# limited KIB COMMAND...: runs it and says how it ended.
limited() {
    local size=$1 status=0
    shift
    (ulimit -c 0 -v "$size" && exec "$@") >"$work/out" 2>"$work/err" </dev/null || status=$?
    if [ "$status" = 0 ]; then
        echo result
    elif grep -q '^error: ' "$work/err" && [ "$status" -le 2 ]; then
        echo error
    elif ! (ulimit -c 0 -v "$size" && exec "$tiller" --version) >"$work/out" 2>&1 </dev/null; then
        echo "cannot start"
    elif [ "$status" = 134 ] && grep -q 'memory allocation of\|bad_alloc\|terminate called\|GGML_ASSERT\|failed to allocate' "$work/err"; then
        echo "documented abort"
    else
        echo "FAILED: status $status: $(tail -n 1 "$work/err")"
    fi
}

# sizes NAME COMMAND...: the smallest size that is enough is looked for first; the ten go from nothing to it.
sizes() {
    local name=$1 low=4096 high=$((16 << 20)) size n how line=''
    shift
    rm -rf "$work/made"
    [ "$(limited "$high" "$@")" = result ] || { cat "$work/err"; die "$name does not work at all"; }
    while [ $((high - low)) -gt $((high / 20)) ]; do
        size=$(((low + high) / 2))
        rm -rf "$work/made"
        if [ "$(limited "$size" "$@")" = result ]; then high=$size; else low=$size; fi
    done
    for n in 1 2 3 4 5 6 7 8 9 10; do
        size=$((high * n / 10))
        rm -rf "$work/made"
        how=$(limited "$size" "$@")
        line+=" $((size >> 10)) MB: $how;"
        case $how in FAILED*) failed=$((failed + 1)) ;; *) passed=$((passed + 1)) ;; esac
    done
    printf '%s:%s\n' "$name" "$line"
}

cat >"$work/plan.json" <<'PLAN'
{"version": 1, "rules": [{"op": "min_clamp", "features": [812], "strength": {"value": 1, "unit": "activation"}}]}
PLAN
sizes run "$tiller" run "$model" --dictionary "$dictionary" --plan "$work/plan.json" --prompt "The sea" --max-tokens 8 \
    --threads 1
sizes harvest "$tiller" harvest "$model" --text "$text" --layer 9 --max-tokens 600 --threads 1 --out "$work/made"
sizes train "$tiller" train sae --model "$model" --text "$text" --layer 9 --features 512 --max-tokens 2000 --threads 1 \
    --out "$work/made"
sizes convert "$tiller" convert "$dictionary" --quant f32 --out "$work/made"
sizes info "$tiller" info "$dictionary" --json
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
