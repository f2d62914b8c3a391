#!/usr/bin/env python3
"""The peer of `tiller bench --what encode`: SAELens on PyTorch encodes the same rows with the same dictionary, in one process
and in turns with libtiller, and the codes are compared.

    python3 -m venv peers && peers/bin/pip install torch sae-lens 'pyarrow<21'
    cargo build --release
    peers/bin/python benches/peers/encode.py target/release/libtiller.so [--pairs 5] [--threads 2]

Prints one line of JSON a case: {"bench", "case", "peer", "value" (tiller), "unit", "baseline" (SAELens in float32, or in the
type named), "ratio" (the median of the pairs), "n"}. One row is counted in rows a second, a batch too. A last case is the
product of the rows with the encoder alone, by PyTorch: what a dense encode cannot be faster than.
"""

import argparse
import ctypes as c
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig

parser = argparse.ArgumentParser()
parser.add_argument("library")
parser.add_argument("--d-model", type=int, default=2304)
parser.add_argument("--features", type=int, default=16384)
parser.add_argument("--rows", type=int, default=4096)
parser.add_argument("--k", type=int, default=64)
parser.add_argument("--pairs", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
tiller = c.CDLL(args.library)
tiller.tiller_error_message.restype = c.c_char_p
tiller.tiller_codes_row.restype = c.c_void_p


class Code(c.Structure):
    _fields_ = [("feature", c.c_uint32), ("activation", c.c_float)]


def call(function, *arguments):
    err = c.c_void_p()
    if function(*arguments, c.byref(err)) != 0:
        raise RuntimeError(tiller.tiller_error_message(err).decode())


def opened(path):
    out = c.c_void_p()
    call(tiller.tiller_dictionary_open, str(path).encode(), c.byref(out))
    return out


def encode(dictionary, rows):
    out = c.c_void_p()
    data = c.c_void_p(rows.data_ptr())
    call(tiller.tiller_dictionary_encode_rows, dictionary, data, c.c_size_t(rows.numel()), c.c_uint32(args.threads), c.byref(out))
    return out


def active(codes, row):
    n = c.c_size_t()
    at = tiller.tiller_codes_row(codes, c.c_size_t(row), c.byref(n))
    return {code.feature: code.activation for code in c.cast(at, c.POINTER(Code))[: n.value]} if n.value else {}


def timed(work):
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def pairs(case, n, count, ours, theirs):
    values, baselines = [], []
    for i in range(n + 1):
        order = [ours, theirs] if i % 2 == 0 else [theirs, ours]
        seconds = {work: timed(work)[0] for work in order}
        if i > 0:
            values.append(count / seconds[ours])
            baselines.append(count / seconds[theirs])
    ratio = statistics.median(v / b for v, b in zip(values, baselines))
    line = {"bench": "encode", "case": case, "peer": "sae-lens", "value": round(statistics.median(values), 2), "unit": "rows/s",
            "baseline": round(statistics.median(baselines), 2), "ratio": round(ratio, 3), "n": n}
    print(json.dumps(line), flush=True)


def ours(dictionary, rows):
    return lambda: tiller.tiller_codes_free(encode(dictionary, rows))


def weights(sae):
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.normal_(0, 0.02)
        sae.b_dec.normal_(0, 0.1)
        sae.W_dec.copy_(torch.nn.functional.normalize(sae.W_enc.T, dim=1))
    return sae


names = {"apply_b_dec_to_input": True, "device": "cpu", "d_in": args.d_model, "d_sae": args.features}
jump = weights(JumpReLUSAE(JumpReLUSAEConfig(**names)))
with torch.no_grad():
    # 4 features in a thousand.
    jump.b_enc.zero_()
    jump.threshold.fill_(2.65 * 0.02 * (args.d_model * 1.01) ** 0.5)
top = weights(TopKSAE(TopKSAEConfig(k=args.k, rescale_acts_by_decoder_norm=False, **names)))
rows = torch.randn(args.rows, args.d_model)
one = rows[:1].contiguous()

with tempfile.TemporaryDirectory() as place, torch.no_grad():
    for name, sae in [("jumprelu", jump), ("topk", top)]:
        directory = Path(place) / name
        sae.save_model(directory)
        mapped = opened(directory)
        for storage in ["F32", "F16", "BF16", "Q8_0"]:
            file = Path(place) / f"{name}-{storage}.gguf"
            call(tiller.tiller_dictionary_save, mapped, str(file).encode(), storage.encode())
            dictionary = opened(file)
            if storage == "F32":
                codes = encode(dictionary, rows)
                dense = sae.encode(rows)
                if dense.is_sparse:
                    dense = dense.to_dense()
                wrong = 0
                for r in range(0, args.rows, 97):
                    found = active(codes, r)
                    theirs = {int(i): float(dense[r, i]) for i in dense[r].nonzero()}
                    wrong += len(found.keys() ^ theirs.keys())
                    assert all(abs(found[i] - theirs[i]) <= 1e-4 * abs(theirs[i]) for i in found.keys() & theirs.keys())
                assert wrong <= 2, f"{wrong} features differ: more than ties and thresholds explain"
                tiller.tiller_codes_free(codes)
                del dense
            pairs(f"one row {name} {storage}", 10 * args.pairs, 1, ours(dictionary, one), lambda: sae.encode(one))
            if storage in ("F32", "Q8_0"):
                pairs(f"batch {name} {storage}", args.pairs, args.rows, ours(dictionary, rows), lambda: sae.encode(rows))
            if (name, storage) in (("jumprelu", "F32"), ("jumprelu", "BF16")):
                product = ours(dictionary, rows), lambda: rows @ sae.W_enc
                pairs(f"batch {name} {storage} against the product alone", args.pairs, args.rows, *product)
            if storage == "BF16":
                half = sae.to(torch.bfloat16)
                x = one.to(torch.bfloat16)
                pairs(f"one row {name} BF16 against SAELens in bfloat16", 10 * args.pairs, 1, ours(dictionary, one), lambda: half.encode(x))
                sae.to(torch.float32)
            tiller.tiller_dictionary_free(dictionary)
        tiller.tiller_dictionary_free(mapped)
