#!/usr/bin/env python3
"""The peers of `tiller bench --what train`: SAELens's and dictionary_learning's own training steps at the same sizes, in
tokens a second.

    python3 -m venv peers && peers/bin/pip install torch sae-lens dictionary-learning 'pyarrow<21'
    peers/bin/python benches/peers/sae_train.py [--variant topk …] [--steps 8] [--threads 2]

Prints a line of JSON for each variant: {"bench", "case", "peer", "value" (tokens/s, median step), "unit", "best", "n"}.
The step is what the peer's trainer does with a batch of activations: training forward pass, backward pass, gradient
clipping, Adam, on random rows in float32; data loading, logging and evaluation are left out.
"""

import argparse
import json
import statistics
import sys
import time
import types

import torch
from sae_lens.saes.sae import TrainStepInput

from saelens import SAELENS

parser = argparse.ArgumentParser()
parser.add_argument("--variant", nargs="+", default=[*SAELENS, "panneal"], choices=[*SAELENS, "panneal"])
parser.add_argument("--d-model", type=int, default=576)
parser.add_argument("--features", type=int, default=4096)
parser.add_argument("--k", type=int, default=32)
parser.add_argument("--batch", type=int, default=4096)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
rows = torch.randn(4 * args.batch, args.d_model)


def saelens(variant):
    """The step of SAELens's trainer."""
    make, settings = SAELENS[variant]
    extra = {"k": args.k} if "topk" in variant or variant == "matryoshka" else {}
    if variant == "matryoshka":
        extra["matryoshka_widths"] = [part * args.features // 32 for part in (1, 3, 7, 15, 32)]
    sae = make(settings(d_in=args.d_model, d_sae=args.features, device="cpu", **extra))
    adam = torch.optim.Adam(sae.parameters(), lr=3e-4, betas=(0.9, 0.999))
    dead = torch.zeros(args.features, dtype=torch.bool)
    coefficients = {name: value.value if hasattr(value, "value") else value
                    for name, value in sae.get_coefficients().items()}

    def step(i, x):
        out = sae.training_forward_pass(
            step_input=TrainStepInput(sae_in=x, coefficients=coefficients, dead_neuron_mask=dead,
                                      n_training_steps=i, is_logging_step=False)
        )
        adam.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.step()

    return step


def panneal():
    """The step of dictionary_learning's trainer."""
    # It imports nnsight for harvesting, which is not done here.
    sys.modules.setdefault("nnsight", types.SimpleNamespace(LanguageModel=None))
    from dictionary_learning.trainers.p_anneal import PAnnealTrainer

    trainer = PAnnealTrainer(
        steps=1000, activation_dim=args.d_model, dict_size=args.features, layer=0, lm_name="", device="cpu",
        warmup_steps=0, sparsity_warmup_steps=None, sparsity_function="Lp^p", anneal_start=1, anneal_end=900,
    )
    return trainer.update


for variant in args.variant:
    torch.manual_seed(0)
    step = panneal() if variant == "panneal" else saelens(variant)
    seconds = []
    for i in range(args.steps + 2):
        x = rows[torch.randperm(rows.shape[0])[: args.batch]]
        start = time.perf_counter()
        step(i, x)
        seconds.append(time.perf_counter() - start)
    seconds = seconds[2:]
    value, best = args.batch / statistics.median(seconds), args.batch / min(seconds)
    peer = "dictionary_learning" if variant == "panneal" else "sae-lens"
    print(json.dumps({"bench": "train", "case": variant, "peer": peer, "value": round(value, 1), "unit": "tokens/s",
                      "best": round(best, 1), "n": len(seconds)}), flush=True)
