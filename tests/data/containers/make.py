"""Writes the files beside it, and what is in them to golden.json. Needs numpy and torch.

    python make.py
"""

import json
import pathlib
import warnings

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
golden = {}


def plain(tensor):
    """What a tensor or an array holds, in numbers that JSON has."""
    if isinstance(tensor, torch.Tensor):
        dtype, values = str(tensor.dtype).removeprefix("torch."), tensor.detach().flatten().double().tolist()
    else:
        dtype, values = tensor.dtype.name, tensor.flatten().astype("f8").tolist()
    return {"dtype": dtype, "shape": list(tensor.shape), "values": values}


def lay_flat(value, name, tensors, values):
    """Dotted names; plain values as JSON."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        tensors[name or "arr_0"] = plain(value)
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            lay_flat(item, f"{name}.{key}" if name else str(key), tensors, values)
    elif isinstance(value, (list, tuple)) and any(isinstance(v, (torch.Tensor, dict)) for v in value):
        for i, item in enumerate(value):
            lay_flat(item, f"{name}.{i}" if name else str(i), tensors, values)
    elif isinstance(value, (torch.dtype, torch.device)):
        values[name] = str(value)
    elif isinstance(value, float) and not np.isfinite(value):
        values[name] = str(value)
    elif not isinstance(value, bytes):
        values[name] = value


def note(file, value):
    tensors, values = {}, {}
    lay_flat(value, "", tensors, values)
    golden[file] = {"tensors": tensors, "values": values}


def save(file, value, **options):
    torch.save(value, HERE / file, **options)
    note(file, value)


def savez(file, save_with=np.savez, **arrays):
    save_with(HERE / file, **arrays)
    note(file, arrays)


def save_npy(file, array):
    np.save(HERE / file, array)
    note(file, array)


def matrix(n_rows, n_cols, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n_rows * 100 + n_cols)
    return torch.randn(n_rows, n_cols, generator=generator).to(dtype)


warnings.filterwarnings("ignore")

# As dictionary_learning saves: the encoder begins as the decoder's transpose, and keeps its order in memory.
decoder = torch.nn.Linear(6, 4, bias=False)
decoder.weight.data = matrix(4, 6)
encoder = torch.nn.Linear(4, 6)
encoder.weight.data = decoder.weight.T.clone()
encoder.bias.data = matrix(1, 6)[0]
module = torch.nn.Module()
module.encoder, module.decoder = encoder, decoder
module.b_dec = torch.nn.Parameter(matrix(1, 4)[0])
module.register_buffer("k", torch.tensor(3, dtype=torch.int))
module.register_buffer("threshold", torch.tensor(-1.0))
save("state_dict.pt", module.state_dict())

# Plain values and dictionaries beside tensors.
nested = {
    "pre_bias": matrix(1, 4)[0],
    "encoder.weight": matrix(6, 4),
    "activation": "TopK",
    "activation_state_dict": {"k": 32, "postact_fn": "ReLU"},
    "flags": {"tied": False, "scale": 0.5, "none": None, "sizes": [1, 2, 70000], "pair": (-3, 2**40)},
    "odd": {"infinite": float("inf"), "dtype": torch.bfloat16, "device": torch.device("cpu"), "empty": {}},
    "layers": [matrix(2, 2), {"a": matrix(1, 2)}],
    "shape": torch.Size([4, 6]),
    "bytes": b"\x00\xff",
}
save("nested.pt", nested)
save("protocol_4.pt", nested, pickle_protocol=4)
save("protocol_5.pt", nested, pickle_protocol=5)
save("legacy.pt", nested, _use_new_zipfile_serialization=False)

kinds = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64".split()
save("types.pt", {kind: torch.tensor([0, 1, 1, 0, 7]).to(getattr(torch, kind)) for kind in kinds})

whole = matrix(4, 6)
parameter = torch.nn.Parameter(matrix(2, 3))
parameter.origin = "here"
views = {
    "whole": whole,
    "transposed": whole.T,
    "part": whole[1:3, 2:5],
    "row": whole[2],
    "every_other": whole.flatten()[::2],
    "permuted": whole.view(2, 2, 6).permute(2, 0, 1),
    "scalar": whole[3, 5],
    "none": whole[:0],
    "parameter": parameter,
    "plain_parameter": torch.nn.Parameter(matrix(1, 2), requires_grad=False),
}
save("views.pt", views)
save("views_legacy.pt", views, _use_new_zipfile_serialization=False)
save("tensor.pt", matrix(2, 3))

params = {
    "W_enc": matrix(4, 6).numpy(),
    "W_dec": matrix(6, 4).numpy(),
    "b_enc": np.zeros(6, "f4"),
    "threshold": np.arange(6, dtype="f4") / 8,
}
savez("params.npz", **params)
savez("params_deflated.npz", save_with=np.savez_compressed, **params)

kinds = "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool".split()
arrays = {kind: np.array([[0, 1, 2], [3, 4, 5]]).astype(kind) for kind in kinds}
savez("types.npz", **arrays)
savez("big_endian.npz", **{kind: a.astype(a.dtype.newbyteorder(">")) for kind, a in arrays.items()})
savez("fortran.npz", **{kind: np.asfortranarray(a) for kind, a in arrays.items()}, cube=np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)))
savez("shapes.npz", scalar=np.array(2.5, "f4"), none=np.zeros((0, 3), "f4"), deep=np.ones((1, 2, 1, 3, 1), "i2"))

# Not in golden.json: only "bias" can be read.
strings = {"words": np.array(["hello", "you"]), "objects": np.array([None, {}]), "complex": np.array([1j])}
np.savez(HERE / "strings.npz", bias=np.arange(2, dtype="f4"), **strings)

# ml_dtypes' bf16, without needing ml_dtypes: two bytes without a type.
halves = matrix(2, 3, torch.bfloat16)
np.save(HERE / "bf16.npy", halves.view(torch.int16).numpy().view("V2"))
note("bf16.npy", halves)
save_npy("array.npy", np.arange(6, dtype="f4").reshape(2, 3))
for version in [(2, 0), (3, 0)]:
    array = np.arange(4, dtype="i8")
    with open(HERE / f"version_{version[0]}.npy", "wb") as out:
        np.lib.format.write_array(out, array, version=version)
    note(f"version_{version[0]}.npy", array)

(HERE / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
