"""Writes probe_reference.json: logistic regressions of scikit-learn on rows that the test makes by the same formula.

python3 tests/data/probe_reference.py   (scikit-learn, numpy)
"""

import json
import pathlib

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def noise(n, salt):
    i = np.arange(1, n + 1, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    x = (i * np.uint64(2654435761) + np.uint64(salt * 40503)) & mask
    x = ((x ^ (x >> np.uint64(15))) * np.uint64(2246822519)) & mask
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(3266489917)) & mask
    return (x ^ (x >> np.uint64(16))) / 2.0**31 - 1.0


n, d = 300, 12
x = noise(n * d, 7).reshape(n, d).astype(np.float32).astype(np.float64)
x *= 10.0 ** (np.arange(d) % 3 - 1)
x = (x + np.arange(d) * 0.5).astype(np.float32).astype(np.float64)
truth = x[:, 0] * 20 + x[:, 1] - x[:, 2] * 0.1 + 3 * noise(n, 8) > 0.2
y = truth.astype(int)
scaled = StandardScaler().fit_transform(x)
cases = []
for penalty in ["l2", "l1"]:
    for c in [0.1, 1.0, 10.0]:
        for standardize in [False, True]:
            solver = "lbfgs" if penalty == "l2" else "saga"
            rows = scaled if standardize else x
            ratio = {"l1_ratio": 1.0 if penalty == "l1" else 0.0}
            model = LogisticRegression(C=c, solver=solver, tol=1e-12, max_iter=1_000_000, **ratio)
            model.fit(rows, y)
            w, b = model.coef_[0], model.intercept_[0]
            margin = rows @ w + b
            loss = np.logaddexp(0, -(2 * y - 1) * margin).sum()
            norm = np.abs(w).sum() if penalty == "l1" else 0.5 * (w**2).sum()
            cases.append(
                {
                    "penalty": penalty,
                    "c": c,
                    "standardize": standardize,
                    "objective": norm + c * loss,
                    "margins": margin[:40].tolist(),
                    "weights": w.tolist(),
                }
            )
out = pathlib.Path(__file__).with_name("probe_reference.json")
out.write_text(json.dumps({"n": n, "d": d, "labels": int(y.sum()), "cases": cases}) + "\n")
