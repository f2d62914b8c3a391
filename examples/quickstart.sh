#!/usr/bin/env bash
# From nothing to a steered model: builds tiller, fetches a small language model, finds the features of the dictionary
# that ships beside this script for a concept given in words, and lets the model write without and with them.
#
#   examples/quickstart.sh                       # medicine
#   examples/quickstart.sh "music song"          # any concept, in a few words
#   examples/quickstart.sh "music song" "Yesterday I"
#   examples/quickstart.sh "music song" "Yesterday I" 1.5      # at this strength, instead of the best one
#
# Root on Debian or Ubuntu: missing tools are installed. Otherwise a line says which to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
. examples/setup.sh

concept=${1:-doctor disease patients hospital}
prompt=${2:-The most important thing is}
strength=${3:-auto}
started=$SECONDS

ensure certificates c++ make cmake libclang pip
ensure_rust

dictionary=
for file in examples/*.gguf; do
    [ ! -s "${file%.gguf}.jsonl" ] || dictionary=$file
done
[ -n "$dictionary" ] || die "no dictionary with explanations in $root/examples" "is the checkout complete?"

say "building (minutes the first time: llama.cpp is compiled for this machine)"
cargo build --release --locked --bin tiller
tiller=$(target_dir)/release/tiller

say "fetching the model"
model=$("$tiller" fetch smollm2)

say "features that mean \"$concept\""
"$tiller" find "${dictionary%.gguf}.jsonl" $concept --number 6

say "the model, without and with these features"
"$tiller" run "$model" --dictionary "$dictionary" --words "$concept" --strength "$strength" \
    --prompt "$prompt" --compare --max-tokens 60

say "done in $((SECONDS - started)) s; try your own: examples/quickstart.sh \"WORDS\" \"PROMPT\""
