#!/usr/bin/env python3
"""Quality at equal tokens: SAELens and `tiller train sae` on the same rows, FVU at equal L0 on rows kept out.

    python3 -m venv peers && peers/bin/python -m pip install torch sae-lens safetensors 'pyarrow<21'
    tiller harvest … --out rows && peers/bin/python benches/peers/sae_quality.py tiller rows [--variant topk …]

Both see every training row `--epochs` times, in batches of the same size. SAELens trains at each learning rate of `--lr`
and its best run counts; tiller keeps its defaults. Variants without k are given fixed coefficients on both sides, several
on ours in one pass; tiller's FVU at SAELens's L0 lies between those of its runs (linear in logarithms), and the run of SAELens counts that
is best beside it. Runs that stay dense (L0 above a quarter of the features) are shown and left out. Both are encoded and
decoded by SAELens: tiller's are converted to its directories first. FVU = Σ‖x − x̂‖² / Σ‖x − mean‖² over the rows kept out,
of which attention sinks (farther from the middle than ten medians of that distance) are left out.

Prints a line of JSON for each run, and one for each variant: {"case", "peer_l0", "peer_fvu", "peer_lr", "l0", "fvu",
"ratio"}, where the last three are tiller's L0s, its FVU at the peer's L0, and that over the peer's FVU.
"""

import argparse
import json
import math
import pathlib
import subprocess
import tempfile

import numpy
import torch
from safetensors.numpy import load_file
from sae_lens import SAE
from sae_lens.saes.sae import TrainStepInput

from saelens import SAELENS

# The penalties that SAELens is given in place of k.
PENALTIES = {
    "jumprelu": {"l0_coefficient": [3.0, 10.0]},
    "gated": {"l1_coefficient": [2.0, 5.0]},
    "relu": {"l1_coefficient": [2.0, 5.0]},
}
parser = argparse.ArgumentParser()
parser.add_argument("tiller")
parser.add_argument("rows", type=pathlib.Path, help="a directory that `tiller harvest` wrote")
parser.add_argument("--variant", nargs="+", default=[*SAELENS], choices=[*SAELENS])
parser.add_argument("--features", type=int, default=2048)
parser.add_argument("--k", type=int, default=32)
parser.add_argument("--batch", type=int, default=1024)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--lr", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
parser.add_argument("--coefficient", type=float, nargs="+", help="SAELens's penalties, in place of the ones given here")
parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 1, 2, 4, 8, 16], help="tiller's")
parser.add_argument("--max-rows", type=int, default=200_000)
parser.add_argument("--test-rows", type=int, default=20_000)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)


def harvested(directory):
    """The rows of all shards, in order: rows are the two-dimensional tensor of a shard."""
    for path in sorted(directory.glob("*.safetensors")):
        tensors = load_file(path)
        yield max(tensors.values(), key=lambda tensor: tensor.size if tensor.ndim == 2 else 0).astype(numpy.float32)


def rows():
    """Training rows and test rows: the last of all, so of other documents. Rows of a sink are in neither."""
    some, count = [], 0
    for shard in harvested(args.rows):
        some.append(shard)
        count += len(shard)
        if count >= args.max_rows + args.test_rows:
            break
    x = numpy.concatenate(some)[: args.max_rows + args.test_rows]
    far = numpy.linalg.norm(x - numpy.median(x[:10_000], axis=0), axis=1)
    x = x[far <= 10 * numpy.median(far)]
    return x[: -args.test_rows], x[-args.test_rows :]


@torch.no_grad()
def judge(sae, test, scale):
    """L0 and FVU."""
    active, error = 0, 0.0
    for x in torch.from_numpy(test).split(2048):
        f = sae.encode(x * scale)
        active += (f > 0).sum().item()
        error += (sae.decode(f) / scale - x).double().square().sum().item()
    spread = numpy.square(test - test.mean(0), dtype=numpy.float64).sum()
    return active / len(test), error / spread


def coefficients(variant):
    """What SAELens is given in place of k, if anything."""
    given = [value for values in PENALTIES.get(variant, {}).values() for value in values]
    return (args.coefficient or given) if given else [None]


def saelens(variant, lr, coefficient, train, scale):
    """SAELens's training on rows scaled to a mean norm of √d, as its trainer's normalisation does: warm-up, Adam, clipping,
    and a linear decay in the last fifth."""
    make, settings = SAELENS[variant]
    extra = {name: coefficient for name in PENALTIES.get(variant, {})} or {"k": args.k}
    if variant == "matryoshka":
        extra["matryoshka_widths"] = [part * args.features // 32 for part in (1, 3, 7, 15, 32)]
    torch.manual_seed(0)
    sae = make(settings(d_in=train.shape[1], d_sae=args.features, device="cpu", **extra))
    adam = torch.optim.Adam(sae.parameters(), lr=lr, betas=(0.9, 0.999))
    order = torch.cat([torch.randperm(len(train)) for _ in range(args.epochs)])
    n_steps = len(order) // args.batch
    idle = torch.zeros(args.features)
    warm_up = n_steps // 20
    for i in range(n_steps):
        share = min(1.0, (i + 1) / max(warm_up, 1)) * min(1.0, (n_steps - i) / (0.2 * n_steps))
        adam.param_groups[0]["lr"] = lr * share
        x = torch.from_numpy(train[order[i * args.batch : (i + 1) * args.batch].numpy()]) * scale
        coefficients = {}
        for name, value in sae.get_coefficients().items():
            value = value.value if hasattr(value, "value") else value
            coefficients[name] = value * min(1.0, (i + 1) / max(warm_up, 1))
        out = sae.training_forward_pass(
            step_input=TrainStepInput(sae_in=x, coefficients=coefficients, dead_neuron_mask=idle > 50_000 // args.batch,
                                      n_training_steps=i, is_logging_step=False)
        )
        adam.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.step()
        with torch.no_grad():
            fired = (out.feature_acts.to_dense() if out.feature_acts.is_sparse else out.feature_acts).gt(0).any(0)
            idle = torch.where(fired, torch.zeros(()), idle + 1)
    with tempfile.TemporaryDirectory() as place:
        sae.save_inference_model(place)
        return SAE.load_from_disk(place)


def ours(variant, flag, values, place):
    """L0 and FVU of tiller's dictionaries, one for each value of a flag, trained in one pass."""
    for old in place.glob("ours*"):
        old.unlink()
    command = [args.tiller, "train", "sae", place / "train.npy", "--layer", 0, "--variant", variant, "--features",
               args.features, flag, ",".join(f"{value:g}" for value in values), "--batch", args.batch, "--epochs",
               args.epochs, "--quant", "f32", "--threads", args.threads, "--held-out", 0, "--out", place / "ours.gguf"]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    runs = []
    for path in place.glob("ours*.gguf"):
        target = place / f"saelens-{variant}-{path.stem}"
        subprocess.run([args.tiller, "convert", str(path), "--to", "saelens", "--out", str(target)], check=True,
                       stdout=subprocess.DEVNULL)
        runs.append(judge(SAE.load_from_disk(str(target)), test, 1.0))
    return sorted(runs)


def at(l0, runs):
    """The FVU at an L0, on the line through the two runs around it, or through the two nearest at an end."""
    if len(runs) == 1:
        return runs[0][1]
    after = min(max(sum(run[0] < l0 for run in runs), 1), len(runs) - 1)
    (l_a, f_a), (l_b, f_b) = runs[after - 1], runs[after]
    slope = (math.log(f_b) - math.log(f_a)) / (math.log(l_b) - math.log(l_a))
    return math.exp(math.log(f_a) + slope * (math.log(l0) - math.log(l_a)))


train, test = rows()
scale = math.sqrt(train.shape[1]) / numpy.linalg.norm(train, axis=1).mean()
print(json.dumps({"rows": len(train), "test_rows": len(test), "d_model": train.shape[1], "features": args.features,
                  "batch": args.batch, "epochs": args.epochs}), flush=True)
with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    numpy.save(place / "train.npy", train)
    for variant in args.variant:
        runs = []
        for lr in args.lr:
            for coefficient in coefficients(variant):
                l0, fvu = judge(saelens(variant, lr, coefficient, train, scale), test, scale)
                print(json.dumps({"case": variant, "peer": "sae-lens", "lr": lr, "coefficient": coefficient, "l0": l0,
                                  "fvu": fvu}), flush=True)
                runs.append((l0, fvu, lr))
        if variant not in PENALTIES:
            runs = [min(runs, key=lambda run: run[1])]
        runs = [run for run in runs if 1 < run[0] <= args.features / 4]
        mine = ours(variant, "--sparsity", args.sparsity, place) if variant in PENALTIES and runs else []
        for l0, fvu in mine:
            print(json.dumps({"case": variant, "l0": l0, "fvu": fvu}), flush=True)
        best = {"case": variant, "ratio": None}
        for peer_l0, peer_fvu, lr in runs:
            if variant == "topk":
                mine = ours(variant, "--k", [args.k], place)
            elif variant not in PENALTIES:
                mine = ours(variant, "--k", [math.floor(peer_l0 * 0.9), math.ceil(peer_l0 * 1.05)], place)
            fvu = at(peer_l0, mine)
            if best["ratio"] is None or fvu / peer_fvu > best["ratio"]:
                best = {"case": variant, "peer_l0": peer_l0, "peer_fvu": peer_fvu, "peer_lr": lr,
                        "l0": [l0 for l0, _ in mine], "fvu": fvu, "ratio": fvu / peer_fvu}
        print(json.dumps(best), flush=True)
