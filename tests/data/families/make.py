"""Writes a small dictionary of every family beside this file, and golden/NAME.safetensors with what its own code makes of it.

    pip install sae-lens 'pyarrow<21' && pip install --no-deps dictionary-learning eai-sparsify natsort && python make.py

Goldens hold x [n, d_in], codes [n, d_sae], reconstruction [n, d_out]. dictionary_learning, sparsify and SAELens' transcoders
are saved and run by their own classes. Gemma Scope, Llama Scope, Qwen-Scope, Goodfire, DeepSeek-R1, mwhanna's transcoders and
the cross-layer ones are written in their published layout, loaded by SAELens' loaders (downloads pointed at this directory)
and run by SAELens. OpenAI's code, the R1 form of Llama Scope, its transcoders and newer OpenMOSS are transcribed below.
"""
import json, math, os, pathlib, shutil, sys, types
from collections import OrderedDict
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
D, F, K, ROWS = 16, 64, 8, 20


def generator(seed):
    return torch.Generator().manual_seed(seed)


def rand(seed, *shape, scale=1.0):
    return torch.randn(*shape, generator=generator(seed)) * scale


def rows(d=D):
    return rand(99, ROWS, d) * 2 + 0.5


def unit(w, dim):
    return w / w.norm(dim=dim, keepdim=True)


def golden(name, x, codes, reconstruction):
    (HERE / "golden").mkdir(exist_ok=True)
    tensors = {"x": x, "codes": codes, "reconstruction": reconstruction}
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, HERE / "golden" / f"{name}.safetensors")
    print(f"{name:32} L0 {(codes > 0).sum(-1).float().mean():.1f}")


def fill(module, seed, **special):
    """Values in place, so that tensors keep the strides that their library gave them."""
    for i, (name, p) in enumerate(sorted(module.named_parameters())):
        with torch.no_grad():
            p.copy_(special[name] if name in special else rand(seed * 100 + i, *p.shape, scale=1.0 if p.ndim == 2 else 0.4))


def shell(name, *missing):
    """Lets submodules of a package be imported without what its __init__ imports: training and text need more than we have."""
    package = types.ModuleType(name)
    package.__path__ = [str(pathlib.Path(p) / name) for p in sys.path if (pathlib.Path(p) / name).is_dir()]
    sys.modules[name] = package
    for other in missing:
        sys.modules[other] = types.ModuleType(other)
    return missing


# ---- dictionary_learning: its own classes.
stubs = shell("dictionary_learning")
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK


def dictionary_learning(name, model, cls, seed, encode=None, **trainer):
    path = HERE / "dictionary_learning" / name
    path.mkdir(parents=True)
    fill(model, seed, **({"threshold": rand(seed, F).abs()} if cls is JumpReluAutoEncoder else {}))
    torch.save(model.state_dict(), path / "ae.pt")
    trainer = {"dict_class": cls.__name__, "layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped", "dict_size": F,
               "activation_dim": D, "submodule_name": "resid_post_layer_3", **trainer}
    (path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128, "d_submodule": D}}))
    loaded = cls.from_pretrained(path / "ae.pt")
    x = rows()
    with torch.no_grad():
        codes = encode(loaded, x) if encode else loaded.encode(x)
        golden(f"dictionary_learning_{name}", x, codes, loaded.decode(codes))


shutil.rmtree(HERE / "dictionary_learning", ignore_errors=True)
dictionary_learning("AutoEncoder", AutoEncoder(D, F), AutoEncoder, 1)
dictionary_learning("AutoEncoderNew", AutoEncoderNew(D, F), AutoEncoderNew, 2)
dictionary_learning("GatedAutoEncoder", GatedAutoEncoder(D, F), GatedAutoEncoder, 3)
dictionary_learning("AutoEncoderTopK", AutoEncoderTopK(D, F, K), AutoEncoderTopK, 4, k=K)
batch = BatchTopKSAE(D, F, K)
batch.threshold.fill_(3.0)
dictionary_learning("BatchTopKSAE", batch, BatchTopKSAE, 5, k=K)
one_by_one = lambda model, x: torch.cat([model.encode(row[None], use_threshold=False) for row in x])
dictionary_learning("BatchTopKSAE_unset", BatchTopKSAE(D, F, K), BatchTopKSAE, 6, encode=one_by_one, k=K)
matryoshka = MatryoshkaBatchTopKSAE(D, F, K, [16, 48])
matryoshka.threshold.fill_(2.5)
dictionary_learning("MatryoshkaBatchTopKSAE", matryoshka, MatryoshkaBatchTopKSAE, 7, k=K)
dictionary_learning("JumpReluAutoEncoder", JumpReluAutoEncoder(D, F), JumpReluAutoEncoder, 8)

# ---- sparsify: its own class.
shell("sparsify")
os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
from sparsify.config import SparseCoderConfig
from sparsify.sparse_coder import SparseCoder


def dense(out, n):
    codes = torch.zeros(out.top_acts.shape[0] if hasattr(out, "top_acts") else out.latent_acts.shape[0], n)
    return codes.scatter_(1, out.top_indices, out.top_acts)


def by_sparsify(name, title, seed, dtype=torch.float32, **cfg):
    path = HERE / "sparsify" / title
    coder = SparseCoder(D, SparseCoderConfig(k=K, **cfg), dtype=dtype)
    fill(coder, seed)
    coder.save_to_disk(path)
    coder = SparseCoder.load_from_disk(path).float()
    x = rows()
    with torch.no_grad():
        encoded = coder.encode(x)
        golden(name, x, dense(encoded, coder.num_latents), coder.forward(x).sae_out)


shutil.rmtree(HERE / "sparsify", ignore_errors=True)
by_sparsify("sparsify_topk", "layers.10", 11, num_latents=F)
by_sparsify("sparsify_groupmax", "layers.11", 12, activation="groupmax", expansion_factor=4, dtype=torch.bfloat16)
by_sparsify("sparsify_transcoder", "layers.3.mlp", 13, num_latents=F, transcode=True, skip_connection=True)
(HERE / "sparsify" / "config.json").write_text(json.dumps({"model": "HuggingFaceTB/SmolLM2-135M", "ctx_len": 2048}))

# ---- SAELens' transcoders, and its loaders of everybody else's files.
from sae_lens import SAE
import sae_lens.loading.pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.transcoder import (JumpReLUSkipTranscoder, JumpReLUSkipTranscoderConfig, SkipTranscoder,
                                      SkipTranscoderConfig, Transcoder, TranscoderConfig)

shutil.rmtree(HERE / "saelens", ignore_errors=True)
for name, cls, config, d_out, seed in [("transcoder", Transcoder, TranscoderConfig, 12, 21),
                                       ("skip_transcoder", SkipTranscoder, SkipTranscoderConfig, D, 22),
                                       ("jumprelu_skip_transcoder", JumpReLUSkipTranscoder, JumpReLUSkipTranscoderConfig, 12, 23)]:
    metadata = SAEMetadata(model_name="SmolLM2-135M", hook_name="blocks.4.hook_mlp_in", hook_name_out="blocks.4.hook_mlp_out")
    sae = cls(config(d_in=D, d_sae=F, d_out=d_out, dtype="float32", device="cpu", apply_b_dec_to_input=False, metadata=metadata))
    fill(sae, seed, **({"threshold": rand(seed, F).abs()} if "jumprelu" in name else {}))
    path = HERE / "saelens" / name
    sae.save_model(path)
    sae, x = SAE.load_from_disk(str(path)), rows()
    with torch.no_grad():
        golden(f"saelens_{name}", x, sae.encode(x), sae(x))


def local(repo_id, filename, subfolder=None, **_):
    path = HERE / repo_id.split("/")[-1] / (subfolder or "") / filename
    if not path.is_file():
        raise loaders.EntryNotFoundError(str(path))
    return str(path)


def shapes(repo_id, filename):
    with safe_open(local(repo_id, filename), "pt") as f:
        return {k: list(f.get_slice(k).get_shape()) for k in f.keys()}


loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = local, shapes


def by_saelens(name, loader, repo_id, folder, scale=None, **overrides):
    """What SAE.from_pretrained does with what a loader returns."""
    cfg, state, _ = loader(repo_id, folder, device="cpu", cfg_overrides={"dtype": "float32", **overrides} or None)
    cfg = loaders.handle_config_defaulting(cfg)
    cls, config = get_sae_class(cfg["architecture"])
    cfg["device"], cfg["dtype"] = "cpu", "float32"
    sae = cls(config.from_dict(cfg))
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    if scale is not None:
        sae.fold_activation_norm_scaling_factor(scale)
    sae, x = sae.float(), rows()
    with torch.no_grad():
        golden(name, x, sae.encode(x), sae(x))


def arrays(seed, e=(D, F), d=(F, D), threshold=True, upper=False):
    w, b = ("W_", "b_") if upper else ("w_", "b_")
    out = {f"{w}enc": rand(seed, *e), f"{w}dec": rand(seed + 1, *d), f"{b}enc": rand(seed + 2, F, scale=0.4),
           f"{b}dec": rand(seed + 3, d[-1], scale=0.4)}
    return {**out, "threshold": rand(seed + 4, F).abs() * 3} if threshold else out


def directory(*parts):
    path = HERE.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


for old in ["gemma-scope-2b-pt-res", "gemma-scope-2b-pt-mlp", "gemma-scope-2b-pt-transcoders", "gemma-scope-2-1b-pt"]:
    shutil.rmtree(HERE / old, ignore_errors=True)
gemma = dict(d_in=D, d_sae=F)
for name, repo, folder, save, seed in [
    ("gemma_scope", "gemma-scope-2b-pt-res", "layer_5/width_16k/average_l0_7", np.savez, 30),
    ("gemma_scope_deflated", "gemma-scope-2b-pt-mlp", "layer_3/width_16k/average_l0_9", np.savez_compressed, 35),
    ("gemma_scope_embedding", "gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6", np.savez, 40),
]:
    save(directory(repo, folder) / "params.npz", **{k: v.numpy() for k, v in arrays(seed, upper=True).items()})
    by_saelens(name, loaders.gemma_2_sae_huggingface_loader, f"google/{repo}", folder, **gemma)
repo, folder = "gemma-scope-2b-pt-transcoders", "layer_2/width_16k/average_l0_11"
np.savez(directory(repo, folder) / "params.npz", **{k: v.numpy() for k, v in arrays(45, upper=True).items()})
by_saelens("gemma_scope_transcoder", loaders.gemma_2_transcoder_huggingface_loader, f"google/{repo}", folder, d_out=D, **gemma)
for name, folder, point_in, point_out, more, seed in [
    ("gemma_scope_2", "resid_post/layer_9_width_16k_l0_small", "model.layers.9.output", "model.layers.9.output", {}, 50),
    ("gemma_scope_2_transcoder", "transcoder/layer_7_width_16k_l0_big_affine", "model.layers.7.pre_feedforward_layernorm.output",
     "model.layers.7.post_feedforward_layernorm.output", {"affine_skip_connection": rand(59, D, D)}, 55),
]:
    path = directory("gemma-scope-2-1b-pt", folder)
    save_file({**arrays(seed), **more}, path / "params.safetensors")
    (path / "config.json").write_text(json.dumps({
        "hf_hook_point_in": point_in, "hf_hook_point_out": point_out, "width": F, "model_name": "gemma-v3-1b-pt",
        "architecture": "jump_relu", "l0": 20, "affine_connection": bool(more), "type": "sae"}))
    by_saelens(name, loaders.gemma_3_sae_huggingface_loader, "google/gemma-scope-2-1b-pt", folder)


def linears(seed, decoder_norm=None):
    decoder = rand(seed + 1, D, F)
    return {"encoder.weight": rand(seed, F, D), "encoder.bias": rand(seed + 2, F, scale=0.4), "decoder.bias": rand(seed + 3, D, scale=0.4),
            "decoder.weight": unit(decoder, 0) if decoder_norm is None else decoder}


# Llama Scope: one number for all thresholds, one constant for all rows.
for old in ["Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-LXTC-8x", "Llama-Scope-R1-Distill", "openmoss"]:
    shutil.rmtree(HERE / old, ignore_errors=True)
hyper = {"d_model": D, "d_sae": F, "expansion_factor": F // D, "act_fn": "jumprelu", "norm_activation": "dataset-wise", "top_k": 8,
         "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": True}
repo, folder = "Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x"
save_file(linears(60), directory(repo, folder, "checkpoints") / "final.safetensors")
(HERE / repo / folder / "hyperparams.json").write_text(json.dumps({
    **hyper, "hook_point_in": "blocks.15.hook_resid_post", "hook_point_out": "blocks.15.hook_resid_post",
    "jump_relu_threshold": 2.5, "dataset_average_activation_norm": {"in": 6.5, "out": 6.5}}))
by_saelens("llama_scope", loaders.llama_scope_sae_huggingface_loader, f"fnlp/{repo}", folder, scale=math.sqrt(D) / 6.5)


def open_moss(name, w, theta, c_in, c_out, raw_theta, transcodes=False):
    """Transcription: f = p where p·‖D‖ > θ, on rows times c_in; the output is divided by c_out."""
    x = rows()
    p = (x * c_in) @ w["encoder.weight"].T + w["encoder.bias"]
    score = p * w["decoder.weight"].norm(dim=0)
    codes = torch.where(score > (theta * c_out if raw_theta else theta), p, torch.zeros(()))
    codes = torch.where(codes > 0, codes, torch.zeros(()))
    return x, codes, (codes @ w["decoder.weight"].T + w["decoder.bias"]) / c_out


repo, folder = "Llama3_1-8B-Base-LXTC-8x", "Llama3_1-8B-Base-L8TC-8x"
w = linears(65, decoder_norm=1)
save_file(w, directory(repo, folder, "checkpoints") / "final.safetensors")
(HERE / repo / folder / "hyperparams.json").write_text(json.dumps({
    **hyper, "hook_point_in": "blocks.8.ln2.hook_normalized", "hook_point_out": "blocks.8.hook_mlp_out",
    "jump_relu_threshold": 2.5, "dataset_average_activation_norm": {"in": 5.0, "out": 3.0}}))
golden("llama_scope_transcoder", *open_moss("", w, 2.5, math.sqrt(D) / 5.0, math.sqrt(D) / 3.0, True))
w = linears(70, decoder_norm=1)
path = directory("Llama-Scope-R1-Distill", "400M-Slimpajama-400M-OpenR1-Math-220k", "L7R")
log_theta = rand(74, F, scale=0.3) + 1
norms = {"dataset_average_activation_norm.blocks.7.hook_resid_post": torch.tensor(7.0)}
save_file({**w, "log_jumprelu_threshold": log_theta, **norms}, path / "sae_weights.safetensors")
(path / "config.json").write_text(json.dumps({
    **{k: v for k, v in hyper.items() if k != "d_sae"}, "hook_point_in": "blocks.7.hook_resid_post", "hook_point_out": "blocks.7.hook_resid_post"}))
c = math.sqrt(D) / 7.0
golden("llama_scope_r1", *open_moss("", w, log_theta.exp(), c, c, False))
w = linears(75, decoder_norm=1)
path = directory("openmoss", "L2R")
save_file({"W_E": w["encoder.weight"].T.contiguous(), "b_E": w["encoder.bias"], "W_D": w["decoder.weight"].T.contiguous(), "b_D": w["decoder.bias"],
           "activation_function.log_jumprelu_threshold": log_theta}, path / "sae_weights.safetensors")
(path / "config.json").write_text(json.dumps({
    **hyper, "norm_activation": "inference", "hook_point_in": "blocks.2.hook_resid_post", "hook_point_out": "blocks.2.hook_resid_post"}))
golden("llama_scope_open_moss", *open_moss("", w, log_theta.exp(), 1.0, 1.0, False))

# ---- OpenAI, transcribed: latents = act(E (LN(x) - pre_bias) + latent_bias), recons = (D latents + pre_bias) std + mean.
shutil.rmtree(HERE / "gpt2-small", ignore_errors=True)
for name, location, layer, top_k, seed in [("openai_topk", "resid_post_mlp_v5_32k", 8, True, 80), ("openai_relu", "resid_delta_mlp", 3, False, 85)]:
    state = OrderedDict([
        ("pre_bias", rand(seed, D, scale=0.4)), ("latent_bias", rand(seed + 1, F, scale=0.4)), ("stats_last_nonzero", torch.zeros(F, dtype=torch.long)),
        ("latents_activation_frequency", rand(seed + 2, F).abs() / 10), ("latents_mean_square", torch.zeros(F)),
        ("encoder.weight", rand(seed + 3, F, D)), ("decoder.weight", rand(seed + 4, D, F)), ("activation", "TopK" if top_k else "ReLU")])
    state["activation_state_dict"] = OrderedDict([("k", K), ("postact_fn", "ReLU")]) if top_k else OrderedDict()
    torch.save(state, directory("gpt2-small", location, "autoencoders") / f"{layer}.pt")
    x = rows()
    mean, std = (x.mean(-1, keepdim=True), x.std(-1, keepdim=True)) if top_k else (0.0, 1.0)
    a = (x - mean) / (std + 1e-5) if top_k else x
    p = (a - state["pre_bias"]) @ state["encoder.weight"].T + state["latent_bias"]
    if top_k:
        best = torch.topk(p, K, dim=-1)
        p = torch.zeros_like(p).scatter_(-1, best.indices, best.values)
    codes = torch.relu(p)
    golden(name, x, codes, (codes @ state["decoder.weight"].T + state["pre_bias"]) * std + mean)

# ---- Qwen-Scope, also square: 16 features of width 16.
for repo, layer, n, seed in [("SAE-Res-Qwen3-1.7B-Base-W32K-L0_5", 4, F, 90), ("SAE-Res-Qwen3-8B-Base-W16K-L0_3", 6, D, 95)]:
    shutil.rmtree(HERE / repo, ignore_errors=True)
    state = {"W_enc": rand(seed, n, D), "W_dec": rand(seed + 1, D, n), "b_enc": rand(seed + 2, n, scale=0.4), "b_dec": rand(seed + 3, D, scale=0.4)}
    torch.save(state, directory(repo) / f"layer{layer}.sae.pt")
    name = "qwen_scope" if n == F else "qwen_scope_square"
    by_saelens(name, loaders.qwen_scope_sae_huggingface_loader, f"Qwen/{repo}", f"layer{layer}.sae.pt", d_in=D, d_sae=n)

# ---- Goodfire, in half precision; DeepSeek-R1.
shutil.rmtree(HERE / "Llama-3.1-8B-Instruct-SAE-l19", ignore_errors=True)
path = directory("Llama-3.1-8B-Instruct-SAE-l19") / "Llama-3.1-8B-Instruct-SAE-l19.pth"
state = {"encoder_linear.weight": rand(100, F, D), "encoder_linear.bias": rand(101, F), "decoder_linear.weight": rand(102, D, F), "decoder_linear.bias": rand(103, D)}
torch.save(OrderedDict((k, v.bfloat16()) for k, v in state.items()), path)
by_saelens("goodfire", loaders.get_goodfire_huggingface_loader, "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", path.name, d_in=D, d_sae=F)
shutil.rmtree(HERE / "DeepSeek-R1-Distill-Llama-8B-SAE-l15", ignore_errors=True)
path = directory("DeepSeek-R1-Distill-Llama-8B-SAE-l15") / "DeepSeek-R1-Distill-Llama-8B-SAE-l15.pt"
torch.save(linears(105, decoder_norm=1), path)
by_saelens("deepseek_r1", loaders.deepseek_r1_sae_huggingface_loader, "x/DeepSeek-R1-Distill-Llama-8B-SAE-l15", path.name, d_in=D, d_sae=F)

# ---- Transcoders with one file a layer, and cross-layer ones.
path = directory("qwen3-0.6b-transcoders")
save_file(arrays(110, e=(F, D), threshold=False, upper=True), path / "layer_6.safetensors")
(path / "config.yaml").write_text("model_name: Qwen/Qwen3-0.6B\nmodel_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n")
(path / "wandb-config.yaml").write_text(f"d_model:\n  value: {D}\nd_feature:\n  value: {F}\nbatch_size:\n  value: 4\n")
by_saelens("transcoder", loaders.mwhanna_transcoder_huggingface_loader, "mwhanna/qwen3-0.6b-transcoders", "layer_6.safetensors")
path = directory("clt-gemma-2-2b")
save_file({"W_enc_2": rand(120, F, D), "b_enc_2": rand(121, F), "b_dec_2": rand(122, D)}, path / "W_enc_2.safetensors")
save_file({"W_dec_2": rand(123, F, 3, D)}, path / "W_dec_2.safetensors")
(path / "config.yaml").write_text("model_name: 'google/gemma-2-2b'\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n")
by_saelens("cross_layer_transcoder", loaders.mntss_clt_layer_huggingface_loader, "mntss/clt-gemma-2-2b", "2")
