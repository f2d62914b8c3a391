#!/usr/bin/env python3
"""Ten training steps of a TopK and a BatchTopK dictionary in plain PyTorch, float64.

Writes train_reference.json, which tests/train_reference.rs compares with the trainer's loss, step by step. Run it only to
renew the file:  python3 tests/data/train_reference.py

Rows and the start come from a formula that both sides evaluate, so the file holds losses only.
"""

import json
import pathlib

import torch

D, F, K, BATCH, STEPS, LR = 24, 64, 4, 32, 10, 1e-2
torch.set_default_dtype(torch.float64)


def noise(n, salt):
    """n numbers in [-1, 1), from a multiplicative hash of 32 bits."""
    i = torch.arange(n, dtype=torch.int64)
    x = ((i + 1) * 2654435761 + salt * 40503) % 2**32
    x = (x ^ (x >> 15)) * 2246822519 % 2**32
    x = (x ^ (x >> 13)) * 3266489917 % 2**32
    x = x ^ (x >> 16)
    return (x.double() / 2**31 - 1).float().double()


def train(rule):
    rows = noise(STEPS * BATCH * D, 1).reshape(-1, D)
    decoder = noise(F * D, 2).reshape(F, D)
    decoder = (decoder / decoder.norm(dim=1, keepdim=True)).requires_grad_()
    encoder = decoder.detach().clone().requires_grad_()
    b_enc = (0.1 * noise(F, 3)).requires_grad_()
    b_dec = (0.1 * noise(D, 4)).requires_grad_()
    adam = torch.optim.Adam([encoder, decoder, b_enc, b_dec], lr=LR, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for step in range(STEPS):
        y = rows[step * BATCH : (step + 1) * BATCH]
        scores = (y - b_dec) @ encoder.T + b_enc
        flat = scores if rule == "topk" else scores.flatten()
        kept = flat.topk(K if rule == "topk" else K * BATCH, dim=-1)
        codes = torch.zeros_like(flat).scatter(-1, kept.indices, kept.values.relu()).reshape(BATCH, F)
        loss = ((codes @ decoder + b_dec - y) ** 2).sum(1).mean()
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) * decoder
        adam.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
    return losses


out = pathlib.Path(__file__).with_suffix(".json")
out.write_text(json.dumps({rule: train(rule) for rule in ("topk", "batchtopk")}, indent=1) + "\n")
print(out.read_text())
