#!/usr/bin/env python3
"""Ten training steps of every variant, by its PyTorch reference, in float64.

Writes train_reference.json, which src/train/oracle.rs compares with the trainer's objective, step by step. Run it only to
renew the file, where SAELens 6 and dictionary_learning are installed:  python3 tests/data/train_reference.py

Rows and the start come from a formula that both sides evaluate, so the file holds losses only, and the salt of the rows.
The objective, and what follows a backward pass, is the peer's own code; TopK and BatchTopK, whose peers differ from each
other, are written out.

JumpReLU's objective jumps where a score crosses its threshold, and its gradients jump at the edges of the rectangle too: a
score that lies on one of them to within the rounding of the trainer's integers (1e-5 of the norms) says nothing about the
trainer. Its rows have the first salt with which none of the reference's scores comes closer than MARGIN.
"""

import itertools
import json
import pathlib
import sys
import types

import torch

# dictionary_learning imports nnsight for harvesting, which is not done here.
sys.modules.setdefault("nnsight", types.SimpleNamespace(LanguageModel=None))

from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig

D, F, K, BATCH, STEPS, LR, WEIGHT = 24, 64, 4, 32, 10, 1e-2, 0.3
THRESHOLD, WIDTH, MARGIN = 0.3, 0.2, 5e-5
torch.set_default_dtype(torch.float64)


def noise(n, salt):
    """n numbers in [-1, 1), from a multiplicative hash of 32 bits."""
    i = torch.arange(n, dtype=torch.int64)
    x = ((i + 1) * 2654435761 + salt * 40503) % 2**32
    x = (x ^ (x >> 15)) * 2246822519 % 2**32
    x = (x ^ (x >> 13)) * 3266489917 % 2**32
    x = x ^ (x >> 16)
    return (x.double() / 2**31 - 1).float().double()


def start():
    """W [F, D] of encoder and decoder, b_enc, b_dec."""
    w = noise(F * D, 2).reshape(F, D)
    w = w / w.norm(dim=1, keepdim=True)
    return w, 0.1 * noise(F, 3), 0.1 * noise(D, 4)


def batches(salt=1):
    return noise(STEPS * BATCH * D, salt).reshape(STEPS, BATCH, D)


def choose(rule):
    """TopK and BatchTopK with a unit decoder, in plain PyTorch."""
    w, b_enc, b_dec = start()
    decoder, encoder = w.clone().requires_grad_(), w.clone().requires_grad_()
    b_enc.requires_grad_(), b_dec.requires_grad_()
    adam = torch.optim.Adam([encoder, decoder, b_enc, b_dec], lr=LR, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for y in batches():
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


def dictionary_learning(trainer, bias, decoder_bias, **extra):
    """A trainer of dictionary_learning: its own update, on weights of ours."""
    made = trainer(
        steps=STEPS, activation_dim=D, dict_size=F, layer=0, lm_name="", lr=LR, warmup_steps=0,
        sparsity_warmup_steps=None, device="cpu", **extra,
    )
    w, b_enc, b_dec = start()
    with torch.no_grad():
        made.ae.encoder.weight.copy_(w)
        made.ae.decoder.weight.copy_(w.T)
        bias(made.ae).copy_(b_enc)
        decoder_bias(made.ae).copy_(b_dec)
    losses = []
    loss_of = made.loss

    def loss(*args, **kwargs):
        value = loss_of(*args, **kwargs)
        losses.append(value.item())
        return value

    made.loss = loss
    for step, y in enumerate(batches()):
        made.update(step, y)
    return losses


def saelens(make, settings, clip=None, config=None, salt=1, seen=lambda sae, out: None, **coefficients):
    """A training SAE of SAELens: its own training_forward_pass, on weights of ours, with Adam."""
    sae = make(settings(d_in=D, d_sae=F, dtype="float64", device="cpu", **(config or {})))
    w, b_enc, b_dec = start()
    with torch.no_grad():
        sae.W_enc.copy_(w.T)
        sae.W_dec.copy_(w)
        sae.b_enc.copy_(b_enc)
        sae.b_dec.copy_(b_dec)
        if hasattr(sae, "threshold"):
            sae.threshold.data = sae.threshold.data.double()
    adam = torch.optim.Adam(sae.parameters(), lr=LR, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for step, y in enumerate(batches(salt)):
        out = sae.training_forward_pass(
            TrainStepInput(
                sae_in=y, coefficients=coefficients, dead_neuron_mask=torch.zeros(F, dtype=torch.bool),
                n_training_steps=step, is_logging_step=False,
            )
        )
        seen(sae, out)
        losses.append(out.loss.item())
        adam.zero_grad()
        out.loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(sae.parameters(), clip)
        adam.step()
    return losses


def jumprelu(**config):
    """The first salt whose scores keep their distance, and its losses."""
    config.update(jumprelu_init_threshold=THRESHOLD, jumprelu_bandwidth=WIDTH)
    for salt in itertools.count(1):
        gaps = []

        def seen(sae, out):
            beyond = (out.hidden_pre - sae.threshold).detach()
            gaps.extend((beyond - edge).abs().min().item() for edge in (-WIDTH / 2, 0, WIDTH / 2))

        losses = saelens(
            JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, config=config, salt=salt, seen=seen, l0=WEIGHT
        )
        if min(gaps) >= MARGIN:
            return dict(salt=salt, losses=losses)


nested = dict(k=K, matryoshka_widths=[8, 24, F], rescale_acts_by_decoder_norm=False)
references = {
    "topk": choose("topk"),
    "batchtopk": choose("batchtopk"),
    "relu, unit decoder": dictionary_learning(
        StandardTrainer, lambda ae: ae.encoder.bias, lambda ae: ae.bias, l1_penalty=WEIGHT
    ),
    "relu, free decoder": saelens(StandardTrainingSAE, StandardTrainingSAEConfig, clip=1.0, l1=WEIGHT),
    "gated": dictionary_learning(
        GatedSAETrainer, lambda ae: ae.gate_bias, lambda ae: ae.decoder_bias, l1_penalty=WEIGHT
    ),
    "jumprelu": jumprelu(),
    "jumprelu, bias kept": jumprelu(apply_b_dec_to_input=False),
    "matryoshka": saelens(MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig, config=nested),
    "panneal": dictionary_learning(
        PAnnealTrainer, lambda ae: ae.encoder.bias, lambda ae: ae.bias, sparsity_function="Lp^p",
        initial_sparsity_penalty=WEIGHT, anneal_start=2, anneal_end=8, p_end=0.4, n_sparsity_updates=3,
    ),
}
references = {
    name: found if isinstance(found, dict) else dict(salt=1, losses=found) for name, found in references.items()
}
out = pathlib.Path(__file__).with_suffix(".json")
out.write_text(json.dumps(references, indent=1) + "\n")
print(out.read_text())
