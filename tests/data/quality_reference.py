"""Makes quality_reference.json: figures of a dictionary's quality by NumPy and scikit-learn.

    python quality_reference.py > quality_reference.json

The definitions are those of src/eval/quality.rs and src/eval/quality/; nothing of tiller runs here.
"""

import json

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

D, F, N = 6, 16, 150
rng = np.random.default_rng(7)


def f32(x):
    return np.asarray(x, dtype=np.float32)


def plain(x):
    """The shortest decimals that are these numbers in 32 bits."""
    return [float(str(v)) for v in np.asarray(x, dtype=np.float32).ravel()]


enc, dec = f32(0.4 * rng.normal(size=(F, D))), f32(rng.normal(size=(F, D)))
dec[3] = dec[5] * 2 + f32(0.01 * rng.normal(size=D))
dec /= np.linalg.norm(dec, axis=1, keepdims=True) / f32(rng.uniform(0.5, 2.0, size=(F, 1)))
dec, b_enc, b_dec = f32(dec), f32(rng.normal(size=F) - 1), f32(0.3 * rng.normal(size=D))
b_enc[9] = -50
x = f32(rng.normal(size=(N, D)) * rng.uniform(0.5, 2.0, size=D) + 0.4 * np.arange(D))

# f = relu(E (x − b_dec) + b_enc), x̂ = f D + b_dec
X, E, W = x.astype(np.float64), enc.astype(np.float64), dec.astype(np.float64)
f = np.maximum((X - b_dec) @ E.T + b_enc, 0)
hat = f @ W + b_dec
error = ((X - hat) ** 2).sum(1)
norms, hats = np.linalg.norm(X, axis=1), np.linalg.norm(hat, axis=1)
density = (f > 0).mean(0)


def nearest(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    return cosine


cosine = nearest(W)
own = ((E / np.linalg.norm(E, axis=1, keepdims=True)) * (W / np.linalg.norm(W, axis=1, keepdims=True))).sum(1)
top = np.unravel_index(cosine.argmax(), cosine.shape)
quality = {
    "l0": (f > 0).sum(1).mean(),
    "l1": f.sum(1).mean(),
    "fvu": error.sum() / ((X - X.mean(0)) ** 2).sum(),
    "mse": error.mean() / D,
    "cosine": ((X * hat).sum(1) / (norms * hats)).mean(),
    "l2_ratio": (hats / norms).mean(),
    "reconstruction_bias": (hats**2).sum() / (X * hat).sum(),
    "mean_row": X.mean(0).tolist(),
}
densities = {
    "alive": (density > 0).mean(),
    "over_1_percent": (density > 0.01).mean(),
    "over_10_percent": (density > 0.1).mean(),
    "firing_over_10_percent": density[density > 0.1].sum() / density.sum(),
}
geometry = {
    "decoder_mean": cosine.max(1).mean(),
    "decoder_median": float(np.median(cosine.max(1))),
    "twins": (cosine.max(1) > 0.9).mean(),
    "encoder_mean": nearest(E).max(1).mean(),
    "own": own.mean(),
    "nearest": [int(min(top)), int(max(top)), cosine.max()],
}

# k-sparse probing on pooled codes: 80 texts with the label, 80 without.
labels = np.arange(160) % 2 == 0
pooled = f32(np.abs(rng.normal(size=(160, 12))) + 0.9 * labels[:, None] * np.array([0] * 4 + [1, 0, 0.7, 0, 0, 0, 0.5, 0]))
train, test = np.arange(110), np.arange(110, 160)
P = pooled.astype(np.float64)
difference = P[train][labels[train]].mean(0) - P[train][~labels[train]].mean(0)
# Both halves have as many texts: 55 each.
order = np.argsort(-np.abs(difference), kind="stable")
accuracy = {}
for k in (1, 2, 5, 12):
    scale = StandardScaler().fit(P[train][:, order[:k]])
    probe = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000)
    probe.fit(scale.transform(P[train][:, order[:k]]), labels[train])
    accuracy[k] = probe.score(scale.transform(P[test][:, order[:k]]), labels[test])


# Absorption: an implementation of its own, with masks over all features.
def absorbed(codes, cosines, main, projection):
    proj = codes * cosines
    is_main = np.isin(np.arange(len(codes)), main)
    own = proj[is_main].sum()
    sharing = np.where(~is_main & (cosines >= 0.1) & (proj > 0), proj, 0)
    taken = np.sort(sharing)[-3:].sum()
    if own >= projection or taken / projection < 0.4:
        fraction = 0.0
    elif own <= 0:
        fraction = 1.0
    else:
        part = min(taken, projection - own)
        fraction = part / (part + own)
    best = proj.argmax()
    full = bool(
        (codes[main] == 0).all() and cosines[best] >= 0.025 and projection > 0 and proj[best] / projection >= 0.4
    )
    return float(fraction), full


words = []
for i in range(120):
    codes = f32(np.where(rng.uniform(size=20) < 0.35, rng.uniform(0.5, 3, size=20), 0))
    main = [0, 1] if i % 3 else [2]
    if i % 2:
        codes[main] = 0
    cosines = f32(rng.uniform(-0.3, 0.8, size=20) * (rng.uniform(size=20) < 0.6))
    projection = float(rng.uniform(0.3, 3))
    fraction, full = absorbed(codes.astype(np.float64), cosines.astype(np.float64), main, projection)
    words.append([plain(codes), plain(cosines), main, projection, fraction, full])

print(
    json.dumps(
        {
            "d_model": D,
            "encoder": plain(enc),
            "decoder": plain(dec),
            "encoder_bias": plain(b_enc),
            "decoder_bias": plain(b_dec),
            "rows": plain(x),
            "quality": quality,
            "density": densities,
            "geometry": geometry,
            "pooled": plain(pooled),
            "labels": labels.tolist(),
            "train": 110,
            "order": order.tolist(),
            "accuracy": {str(k): v for k, v in accuracy.items()},
            "words": words,
        },
        indent=None,
        separators=(",", ":"),
    )
)
