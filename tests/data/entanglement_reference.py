"""Writes entanglement_reference.json: the figures of eval::entanglement by NumPy, SciPy and scikit-learn, on numbers that the
test makes by the same formulas.

python3 tests/data/entanglement_reference.py   (numpy, scipy, scikit-learn)
"""

import json
import pathlib

import numpy as np
from scipy.linalg import subspace_angles
from scipy.stats import entropy, pearsonr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def noise(n, salt):
    i = np.arange(1, n + 1, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    x = (i * np.uint64(2654435761) + np.uint64(salt * 40503)) & mask
    x = ((x ^ (x >> np.uint64(15))) * np.uint64(2246822519)) & mask
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(3266489917)) & mask
    return (x ^ (x >> np.uint64(16))) / 2.0**31 - 1.0


N, TRAIN, F, C = 600, 400, 14, 5
ATTRIBUTES = [0, 0, 1, 1, 2]
KS = [1, 2, 5, 10, 25]

labels = noise(N * C, 1).reshape(N, C) > 0.1
# The first ten features say a concept each, with noise, the fifth one two; the others say nothing. One never fires.
codes = noise(N * F, 2).reshape(N, F)
for j in range(10):
    codes[:, j] += (0.25 + 0.125 * j) * labels[:, j % C]
codes[:, 4] += 0.875 * labels[:, 1]
codes = np.maximum(codes - 0.125, 0.0)
codes[:, 13] = 0.0
codes = codes.astype(np.float32).astype(np.float64)
out = {"n": N, "train": TRAIN, "n_features": F, "n_concepts": C, "attributes": ATTRIBUTES, "ks": KS}


def correlations(x, y):
    def one(a, b):
        return 0.0 if np.ptp(a) == 0 else pearsonr(a, b).statistic

    return np.array([[one(x[:, j], y[:, c]) for c in range(C)] for j in range(F)])


def means(values):
    per = [np.mean([v for v, a in zip(values, ATTRIBUTES) if a == k]) for k in range(3)]
    return [float(np.mean(values)), float(np.mean(per))]


table = correlations(codes, labels.astype(float))
out["correlations"] = table.ravel().tolist()
out["features"] = table.argmax(axis=0).tolist()
out["mcc"] = means(table.max(axis=0))
out["mcc_by_size"] = means(np.abs(table).max(axis=0))
out["l0"] = float((codes != 0).sum(axis=1).mean())
out["deviations"] = codes.std(axis=0).tolist()
out["means_with"] = np.array([[codes[labels[:, c], j].mean() for c in range(C)] for j in range(F)]).ravel().tolist()
hit = np.abs(table) > 0.3
per_feature = hit.sum(axis=1)
per_feature = per_feature[per_feature > 0]
out["one_to_many"] = {
    "features": len(per_feature),
    "concepts_per_feature": float(per_feature.mean()),
    "shared": float((per_feature > 1).mean()),
    "features_per_concept": float(hit.sum(axis=0).mean()),
}

# k-sparse probing and DCI.
x, tx = codes[:TRAIN], codes[TRAIN:]
scaler = StandardScaler().fit(x)
z, tz = scaler.transform(x), scaler.transform(tx)
relevance, accuracies, curves = np.zeros((F, C)), [], []
for c in range(C):
    y, ty = labels[:TRAIN, c].astype(int), labels[TRAIN:, c].astype(int)
    model = LogisticRegression(C=0.1, l1_ratio=1.0, solver="saga", tol=1e-12, max_iter=1_000_000).fit(z, y)
    weights = np.abs(model.coef_[0])
    relevance[:, c] = weights
    accuracies.append(float((model.predict(tz) == ty).mean()))
    order = np.argsort(-weights, kind="stable")
    order = order[weights[order] > 0]
    curve = []
    for k in KS:
        use = order[:k]
        small = LogisticRegression(C=1.0, solver="lbfgs", tol=1e-12, max_iter=1_000_000).fit(z[:, use], y)
        curve.append(float(abs(pearsonr(tz[:, use] @ small.coef_[0] + small.intercept_[0], ty).statistic)))
    curves.append(curve)
out["relevance"], out["accuracies"], out["curves"] = relevance.ravel().tolist(), accuracies, curves


def dci(r):
    d = np.array([1 - entropy(row / row.sum()) / np.log(r.shape[1]) if row.sum() > 0 else 0 for row in r])
    c = [1 - entropy(r[:, k] / r[:, k].sum()) / np.log(r.shape[0]) if r[:, k].sum() > 0 else 0 for k in range(r.shape[1])]
    return [float((d * r.sum(axis=1)).sum() / r.sum()), float(np.mean(c))]


out["dci"] = dci(relevance)
planted = np.abs(noise(F * C, 3)).reshape(F, C) ** 3
planted[2] = 0
planted[:, 3] = 0
out["dci_planted"] = dci(planted)

# Effects of edits, with an interaction in one pair.
rows = 40
base = (noise(rows * C, 4) * 2 + 0.5).astype(np.float32).astype(np.float64).reshape(rows, C)
edits = np.eye(C) * 3 + noise(C * C, 5).reshape(C, C)
steered = [(base + edits[i] + 0.25 * noise(rows * C, 10 + i).reshape(rows, C)).astype(np.float32).astype(np.float64) for i in range(C)]
t = np.array([(s.mean(axis=0) - base.mean(axis=0)) / base.std(axis=0, ddof=1) for s in steered])
out["effects"] = t.ravel().tolist()
selectivity, leak = [], []
for i in range(C):
    others = np.array([abs(t[i, j]) for j in range(C) if ATTRIBUTES[j] != ATTRIBUTES[i]])
    selectivity.append(abs(t[i, i]) / (abs(t[i, i]) + others.sum()))
    leak.append(others.max() / abs(t[i, i]))
out["selectivity"], out["leak"] = selectivity, leak
level = [base.mean(axis=0), steered[0].mean(axis=0), steered[2].mean(axis=0)]
both = level[1] + level[2] - level[0] + noise(C, 6)
out["both"] = both.tolist()
interaction = np.abs(both + level[0] - level[1] - level[2]).sum()
out["interaction"] = float(interaction / (np.abs(level[1] - level[0]).sum() + np.abs(level[2] - level[0]).sum()))
d = 9
a = noise(3 * d, 7).reshape(3, d).astype(np.float32).astype(np.float64)
b = noise(4 * d, 8).reshape(4, d).astype(np.float32).astype(np.float64)
b[1] = a[0]
out["overlap"] = float((np.cos(subspace_angles(a.T, b.T)) ** 2).mean())
pathlib.Path(__file__).with_name("entanglement_reference.json").write_text(json.dumps(out) + "\n")
