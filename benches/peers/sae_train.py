#!/usr/bin/env python3
"""The peer of `tiller bench --what train`: SAELens's own TopK training step at the same sizes, in tokens a second.

    python3 -m venv peers && peers/bin/pip install torch sae-lens 'pyarrow<21'
    peers/bin/python benches/peers/sae_train.py [--steps 8] [--threads 2]

Prints one line of JSON: {"bench", "case", "peer", "value" (tokens/s, median step), "unit", "best", "n"}.
The step is what SAELens's trainer does with a batch of activations: training forward pass, backward pass, gradient
clipping, Adam, on random rows in float32; data loading, logging and evaluation are left out.
"""

import argparse
import json
import statistics
import time

import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput

parser = argparse.ArgumentParser()
parser.add_argument("--d-model", type=int, default=576)
parser.add_argument("--features", type=int, default=4096)
parser.add_argument("--k", type=int, default=32)
parser.add_argument("--batch", type=int, default=4096)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=args.d_model, d_sae=args.features, k=args.k, device="cpu"))
adam = torch.optim.Adam(sae.parameters(), lr=3e-4, betas=(0.9, 0.999))
rows = torch.randn(4 * args.batch, args.d_model)
dead = torch.zeros(args.features, dtype=torch.bool)


def step(i):
    x = rows[torch.randperm(rows.shape[0])[: args.batch]]
    out = sae.training_forward_pass(
        step_input=TrainStepInput(sae_in=x, coefficients={}, dead_neuron_mask=dead, n_training_steps=i, is_logging_step=False)
    )
    adam.zero_grad()
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
    adam.step()


seconds = []
for i in range(args.steps + 2):
    start = time.perf_counter()
    step(i)
    seconds.append(time.perf_counter() - start)
seconds = seconds[2:]
value, best = args.batch / statistics.median(seconds), args.batch / min(seconds)
print(json.dumps({"bench": "train", "case": "topk", "peer": "sae-lens", "value": round(value, 1), "unit": "tokens/s",
                  "best": round(best, 1), "n": len(seconds)}))
