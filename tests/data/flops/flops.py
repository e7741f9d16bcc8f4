"""Counts the floating-point operations of a small transformer's forward pass, gradient and Gauss-Newton gradient with
PyTorch's FlopCounterMode, attention by plain operations. Prints JSON; `flops.json` is its output.

    python flops.py > flops.json
"""

import json

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

BATCH, LENGTH, VOCAB = 2, 24, 50
CONFIGS = {
    "gelu": dict(width=32, layers=2, heads=4, kv_heads=4, mlp=96, swiglu=False),
    "swiglu-grouped": dict(width=32, layers=3, heads=4, kv_heads=2, mlp=80, swiglu=True),
}


def parameters(c):
    w, kv = c["width"], c["width"] // c["heads"] * c["kv_heads"]
    shapes = [(VOCAB, w)]
    for _ in range(c["layers"]):
        shapes += [(w, w), (kv, w), (kv, w), (w, w), (c["mlp"], w)]
        shapes += [(c["mlp"], w)] if c["swiglu"] else []
        shapes += [(w, c["mlp"])]
    shapes += [(VOCAB, w)]
    return [torch.randn(shape, dtype=torch.float64) * 0.1 for shape in shapes]


def norm(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def logits(c, params, tokens):
    params = iter(params)
    x = F.embedding(tokens, next(params))
    heads = lambda t, n: t.unflatten(-1, (n, -1)).transpose(1, 2)
    mask = torch.full((LENGTH, LENGTH), float("-inf"), dtype=torch.float64).triu(1)
    for _ in range(c["layers"]):
        h = norm(x)
        q = heads(F.linear(h, next(params)), c["heads"])
        k = heads(F.linear(h, next(params)), c["kv_heads"])
        v = heads(F.linear(h, next(params)), c["kv_heads"])
        repeats = c["heads"] // c["kv_heads"]
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        a = torch.softmax(q @ k.transpose(-1, -2) + mask, -1) @ v
        x = x + F.linear(a.transpose(1, 2).flatten(2), next(params))
        h = norm(x)
        up = F.linear(h, next(params))
        h = F.silu(F.linear(h, next(params))) * up if c["swiglu"] else F.gelu(up, approximate="tanh")
        x = x + F.linear(h, next(params))
    return F.linear(norm(x), next(params))


def counted(body):
    with FlopCounterMode(display=False) as counter:
        body()
    return counter.get_total_flops()


def counts(c):
    params = parameters(c)
    tokens = torch.randint(VOCAB, (BATCH, LENGTH + 1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].reshape(-1)

    def forward():
        with torch.no_grad():
            logits(c, params, inputs)

    def gradient():
        leaves = [p.clone().requires_grad_() for p in params]
        loss = F.cross_entropy(logits(c, leaves, inputs).flatten(0, 1), targets)
        torch.autograd.grad(loss, leaves)

    def quadratic():
        leaves = [p.clone().requires_grad_() for p in params]
        z = logits(c, leaves, inputs).flatten(0, 1)  # primal, whose graph the reverse pass uses
        with torch.no_grad(), fwAD.dual_level():
            duals = [fwAD.make_dual(p, torch.randn_like(p)) for p in params]
            tangent = fwAD.unpack_dual(logits(c, duals, inputs)).tangent.flatten(0, 1)
        p = torch.softmax(z.detach(), -1)
        u = p - F.one_hot(targets, VOCAB) + p * (tangent - (p * tangent).sum(-1, keepdim=True))
        torch.autograd.grad(z, leaves, u)

    f, g, q = counted(forward), counted(gradient), counted(quadratic)
    # The tangent pass computes the values once more, which a pass that has them does not.
    return dict(c, forward=f, gradient=g, quadratic=q - f)


print(json.dumps(dict(batch=BATCH, length=LENGTH, vocab=VOCAB, models={k: counts(c) for k, c in CONFIGS.items()}), indent=1))
