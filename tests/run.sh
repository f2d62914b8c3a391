#!/usr/bin/env bash
# Everything that must hold, from a fresh checkout: sets up what is missing, builds, fetches the models, and runs the
# formatter, the linter, the tests of the library, the command and the bindings (C, C++, Go, valgrind), every benchmark once,
# and the tests of the library without its engine. Ends with a line `N passed, N failed, N skipped`.
#
# Root on Debian or Ubuntu: missing tools are installed. Otherwise a line says which to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
. examples/setup.sh

ensure certificates c++ make cmake libclang pip valgrind go
ensure_rust
export CARGO_TERM_COLOR=never RUST_BACKTRACE=${RUST_BACKTRACE:-1}
target=$(target_dir)
logs=$target/tests
mkdir -p "$logs"

passed=0 failed=0 skipped=0

# step NAME COMMAND...: one check; its output goes to a file, whose end is shown if it fails.
step() {
    local name=$1 log started=$SECONDS
    log=$logs/${name// /-}.log
    shift
    if "$@" >"$log" 2>&1 </dev/null; then
        passed=$((passed + 1))
        printf 'ok      %-28s %4d s\n' "$name" $((SECONDS - started))
    else
        failed=$((failed + 1))
        printf 'FAILED  %-28s %4d s, %s\n' "$name" $((SECONDS - started)) "$log"
        tail -n 60 "$log"
    fi
}

# suite NAME COMMAND...: a run of cargo test; every test counts, and so does a suite that does not build or runs nothing.
suite() {
    local name=$1 log good bad missing status=0 started=$SECONDS
    log=$logs/${name// /-}.log
    shift
    "$@" >"$log" 2>&1 </dev/null || status=$?
    good=$(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$log" | paste -sd+ - | sed 's/^$/0/')
    bad=$(sed -n 's/^test result: .* \([0-9]*\) failed;.*/\1/p' "$log" | paste -sd+ - | sed 's/^$/0/')
    missing=$(grep -c '^SKIPPED' "$log" || true)
    good=$((good)) bad=$((bad))
    [ "$status" = 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ $((good + bad)) -gt 0 ] || bad=1
    passed=$((passed + good - missing)) failed=$((failed + bad)) skipped=$((skipped + missing))
    printf '%-7s %-28s %4d s, %d passed, %d failed, %d skipped\n' "$([ "$bad" = 0 ] && echo ok || echo FAILED)" "$name" \
        $((SECONDS - started)) $((good - missing)) "$bad" "$missing"
    # Where the time went.
    awk '/^ +Running /{name = $2 == "unittests" ? $3 : $2}
        / finished in [0-9.]+s$/{seconds = $NF; sub("s", "", seconds); printf "        %7.1f s  %s\n", seconds, name}' "$log" |
        sort -rn | head -n 5 || true
    if [ "$bad" != 0 ]; then
        grep -E '^(test .* FAILED|error|    .*::)' "$log" | head -n 40 || true
        grep -A 12 -E "^thread '.*panicked" "$log" | head -n 120 || true
        tail -n 20 "$log"
        printf 'all of it: %s\n' "$log"
    fi
}

# beside COMMAND...: a suite that runs beside those that follow; joined: its result, once it has ended.
beside() {
    rm -f "$logs/beside"
    (
        passed=0 failed=0 skipped=0
        "$@"
        printf '%d %d %d\n' "$passed" "$failed" "$skipped" >"$logs/beside"
    ) >"$logs/beside.shown" &
    beside_id=$!
}
joined() {
    local counts
    if wait "$beside_id" && read -r -a counts <"$logs/beside"; then :; else counts=(0 1 0); fi
    cat "$logs/beside.shown"
    passed=$((passed + counts[0])) failed=$((failed + counts[1])) skipped=$((skipped + counts[2]))
}

say "build (minutes the first time: llama.cpp is compiled; log in $logs)"
# All of it at once: one target at a time, cargo would build the library anew for each set of dependencies.
step "build" cargo build --release --locked --all-targets
[ "$failed" = 0 ] || { printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"; exit 1; }

say "models"
models=()
for model in smollm2 gemma3-270m qwen2.5-coder-0.5b; do
    models+=("$("$target/release/tiller" fetch "$model")")
done
TILLER_TEST_MODELS=$(dirname "${models[0]}")
export TILLER_TEST_MODELS

say "checks"
step "scripts" bash -n examples/setup.sh examples/quickstart.sh tests/run.sh tests/hands.sh tests/gpu.sh tests/killed.sh tests/memory.sh .ci/run
if cargo fmt --version >/dev/null 2>&1; then step "format" cargo fmt --check; fi
if cargo clippy --version >/dev/null 2>&1; then
    step "lint" cargo clippy --release --locked --all-targets -- --deny warnings
fi

say "tests"
# The longest tests use one processor; they run beside the others.
long=(adopt conca_synthetic conformance diagnosis)
others=()
for file in tests/*.rs tests/*/main.rs; do
    name=${file#tests/}
    name=${name%/main.rs}
    name=${name%.rs}
    [[ " ${long[*]} " == *" $name "* ]] || others+=(--test "$name")
done
beside suite "long tests" cargo test --release --locked --no-fail-fast "${long[@]/#/--test=}" -- --show-output
suite "tests" cargo test --release --locked --no-fail-fast --lib --bins "${others[@]}" -- --show-output
suite "documentation" cargo test --release --locked --doc
joined
step "benches" cargo test --release --locked --bench '*'
# Without its engine the library is the same code less a part: what is about that part is run again, and all is compiled.
step "targets without engine" cargo check --release --locked --no-default-features --all-targets
suite "tests without engine" cargo test --release --locked --no-default-features --no-fail-fast \
    --test conformance --test header --test panic_wall --test symbols -- --show-output

printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
