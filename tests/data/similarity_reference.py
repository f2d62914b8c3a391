"""Writes similarity_reference.json: SVCCA and RSA by NumPy and SciPy on rows that the test makes by the same formula.

python3 tests/data/similarity_reference.py   (numpy, scipy)
"""

import json
import pathlib

import numpy as np
from scipy.linalg import subspace_angles
from scipy.stats import spearmanr


def noise(n, salt):
    i = np.arange(1, n + 1, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    x = (i * np.uint64(2654435761) + np.uint64(salt * 40503)) & mask
    x = ((x ^ (x >> np.uint64(15))) * np.uint64(2246822519)) & mask
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(3266489917)) & mask
    return (x ^ (x >> np.uint64(16))) / 2.0**31 - 1.0


def rows(n, d, salt, decay):
    """Noise whose columns get smaller, as float32."""
    return (noise(n * d, salt).reshape(n, d) * decay ** np.arange(d)).astype(np.float32)


def axes(x, share):
    x = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    k = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), share)) + 1
    return x, u[:, :k] * s[:k], k


def svcca_99(x, y):
    _, x, kx = axes(x, 0.99)
    _, y, ky = axes(y, 0.99)
    return float(np.mean(np.cos(subspace_angles(x, y)))), kx, ky


def svcca_top1(x, y):
    first = [axes(side, 0.99)[1][:, 0] for side in (x, y)]
    return float(abs(np.corrcoef(*first)[0, 1]))


def rsa(x, y):
    upper = np.triu_indices(len(x), 1)
    return float(spearmanr(np.corrcoef(x)[upper], np.corrcoef(y)[upper]).statistic)


CASES = [(60, 8, 8, 1.0, 0.5), (60, 12, 7, 0.3, 0.9), (200, 24, 30, 0.0, 0.8), (30, 50, 40, 0.5, 0.8)]
cases = []
for n, dx, dy, mix, decay in CASES:
    x = rows(n, dx, 1, decay)
    y = rows(n, dy, 2, decay)
    shared = min(dx, dy)
    y[:, :shared] += np.float32(mix) * x[:, :shared]
    x, y = x.astype(np.float64), y.astype(np.float64)
    full, kx, ky = svcca_99(x, y)
    cases.append(
        {
            "n": n, "d_x": dx, "d_y": dy, "mix": mix, "decay": decay, "k_x": kx, "k_y": ky,
            "svcca_99": full, "svcca_top1": svcca_top1(x, y), "rsa": rsa(x, y),
        }
    )
out = pathlib.Path(__file__).with_name("similarity_reference.json")
out.write_text(json.dumps({"cases": cases}, indent=1) + "\n")
