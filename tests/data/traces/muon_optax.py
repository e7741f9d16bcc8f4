"""Writes muon-optax.safetensors: optax.contrib.muon in float64 as the inner solver of the Gauss-Newton study.

Embedding and head take optax.adamw, everything else optax.contrib.muon, each group with its own clip by global norm.
optax stores kernels as (in, out), so hidden matrices are handed over transposed.

Usage: python muon_optax.py OUT_FILE    (optax 0.2.8, jax 0.10.2, safetensors)
"""

import json
import sys

import jax

jax.config.update("jax_enable_x64", True)
import numpy as np
import optax
from safetensors.numpy import save_file

STEPS, LR, CLIP, DECAY, ADAM_DECAY = 20, 0.02, 1.0, 0.05, 0.1
PARAMS = [
    ("embed.weight", (11, 6), "embedding", -1),
    ("blocks.0.attn.q.weight", (6, 6), "hidden", 0),
    ("blocks.0.mlp.up.weight", (10, 6), "hidden", 0),
    ("blocks.0.mlp.down.weight", (6, 10), "hidden", 0),
    ("blocks.0.norm.weight", (6,), "norm", 0),
    ("head.weight", (11, 6), "head", 1),
]
VOCABULARY = {"embed.weight", "head.weight"}


def turned(tree):
    return {name: value.T if role == "hidden" else value for name, _, role, _ in PARAMS for value in [tree[name]]}


rng = np.random.default_rng(4)
start = {name: rng.standard_normal(shape) for name, shape, _, _ in PARAMS}
fixed = {name: rng.standard_normal(shape) for name, shape, _, _ in PARAMS}
adamw = optax.adamw(LR, b1=0.9, b2=0.999, eps=1e-8, weight_decay=ADAM_DECAY)
muon = optax.contrib.muon(LR, beta=0.95, weight_decay=DECAY, adam_b1=0.9, adam_b2=0.999, adam_weight_decay=ADAM_DECAY)
clipped = {
    "vocabulary": optax.chain(optax.clip_by_global_norm(CLIP), adamw),
    "rest": optax.chain(optax.clip_by_global_norm(CLIP), muon),
}
labels = {name: "vocabulary" if name in VOCABULARY else "rest" for name in start}
optimizer = optax.multi_transform(clipped, labels)

w = turned(start)
state = optimizer.init(w)
tensors = {f"param/{name}": value for name, value in start.items()}
for t in range(1, STEPS + 1):
    # A direction that turns, and noise; short in every fourth step, so that some gradients are not clipped.
    size = 0.02 if t % 4 == 0 else 1.0
    noise = {name: rng.standard_normal(shape) for name, shape, _, _ in PARAMS}
    g = {name: size * (fixed[name] * np.cos(0.3 * t) + 0.5 * noise[name]) for name in fixed}
    updates, state = optimizer.update(turned(g), state, w)
    w = optax.apply_updates(w, updates)
    tensors |= {f"grad/{t}/{name}": value for name, value in g.items()}
    tensors |= {f"after/{t}/{name}": np.asarray(value) for name, value in turned(w).items()}

config = {"variant": "optax", "lr": LR, "momentum": 0.95, "weight_decay": DECAY, "clip_norm": CLIP}
metadata = {
    "optimizer": "muon",
    "config": json.dumps(config | {"adam": {"weight_decay": ADAM_DECAY}}),
    "params": json.dumps([{"name": n, "role": r, "layer": l} for n, _, r, l in PARAMS]),
    "reference": f"optax.contrib.muon {optax.__version__}",
    "steps": str(STEPS),
    "dtype": "float64",
}
save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, sys.argv[1], metadata=metadata)
