"""Writes the SAELens fixtures beside this file, with golden codes by SAELens' own encode and decode.

    pip install sae-lens 'pyarrow<21' && python make.py

Each directory holds what SAELens saves and golden.safetensors: x [n, d_in], codes [n, d_sae], reconstruction [n, d_in].
"""
import json, pathlib, shutil, sys
import torch
from safetensors.torch import load_file, save_file
from sae_lens import (SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, GatedSAE, GatedSAEConfig, JumpReLUSAE,
                      JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig)
from sae_lens.saes.matryoshka_batchtopk_sae import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata

HERE = pathlib.Path(__file__).parent
D_IN, D_SAE, ROWS = 8, 12, 6


def fill(sae, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(sae.named_parameters()):
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float32).to(p.dtype) * (1.0 if p.ndim == 2 else 0.4)
        if name == "threshold":
            p.data = p.data.abs() * 2 - 0.3


def rows():
    g = torch.Generator().manual_seed(99)
    return torch.randn(ROWS, D_IN, generator=g) * 3 + 0.7


def golden(path, version6=True):
    sae = SAE.load_from_disk(str(path)).to(torch.float32)
    with torch.no_grad():
        x = rows()
        codes = sae.encode(x)
        x_hat = sae.decode(codes)
    save_file({"x": x, "codes": codes.contiguous(), "reconstruction": x_hat.contiguous()}, path / "golden.safetensors")
    print(path.name, "L0", (codes > 0).sum(-1).tolist())


def metadata(**more):
    return SAEMetadata(model_name="SmolLM2-135M", hook_name="blocks.4.hook_resid_post", prepend_bos=True, **more)


def save(name, sae, seed, inference=False):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    fill(sae, seed)
    sae.save_inference_model(path) if inference else sae.save_model(path)
    golden(path)


def common(**more):
    return dict(d_in=D_IN, d_sae=D_SAE, dtype="float32", device="cpu", metadata=metadata(), **more)


save("standard", StandardSAE(StandardSAEConfig(**common(apply_b_dec_to_input=True))), 1)
save("standard_layer_norm",
     StandardSAE(StandardSAEConfig(**common(apply_b_dec_to_input=False, normalize_activations="layer_norm"))), 2)
save("topk_rescaled_constant_norm",
     TopKSAE(TopKSAEConfig(**common(k=3, rescale_acts_by_decoder_norm=True,
                                    normalize_activations="constant_norm_rescale"))), 3)
bf16 = common(apply_b_dec_to_input=False)
bf16["dtype"] = "bfloat16"
save("jumprelu_bf16", JumpReLUSAE(JumpReLUSAEConfig(**bf16)), 4)
save("gated", GatedSAE(GatedSAEConfig(**common())), 5)
for name, sae in [
    ("batchtopk", BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common(k=3)))),
    ("matryoshka", MatryoshkaBatchTopKTrainingSAE(MatryoshkaBatchTopKTrainingSAEConfig(**common(k=3, matryoshka_widths=[4, 12])))),
]:
    sae.topk_threshold.fill_(2.5)
    save(name, sae, 6, inference=True)
# Of version 5: everything flat, other names, TopK that calls itself standard, and factors that are all one.
path = HERE / "flat_topk"
save("flat_topk", TopKSAE(TopKSAEConfig(**common(k=4))), 7)
weights = load_file(path / "sae_weights.safetensors")
weights["scaling_factor"] = torch.ones(D_SAE)
save_file(weights, path / "sae_weights.safetensors")
(path / "cfg.json").write_text(json.dumps({
    "d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu", "model_name": "gpt2-small",
    "hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "hook_point_head_index": None,
    "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}, "normalize_activations": False,
    "apply_b_dec_to_input": True, "finetuning_scaling_factor": False, "context_size": 128, "prepend_bos": True,
    "dataset_path": "x", "sae_lens_training_version": "3.0.0"}))
golden(path)
