"""The gradient of the quadratic model at a point, q(d) = L + <g0, J d> + 1/2 <J d, H J d>, by three ways of PyTorch.

- `func`: `torch.func.jvp` for J d, `torch.func.vjp` for the pullback, a primal pass each.
- `forward`: forward-mode AD through a graph that the reverse pass then uses, so one primal pass.
- `curvlinops`: its Gauss-Newton operator, which gives J^T H J d alone; the gradient that the other two include is not
  computed.
"""

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F

from drive import Side, seconds, split
from model import Transformer

side = Side()
params, tokens = split(side.inputs())
names, values = list(params), list(params.values())
delta = [0.01 * value for value in values]
inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
model = Transformer(num_layers=4, num_heads=4, width=256, attention="math")


def logits(values):
    return model.logits(dict(zip(names, values)), inputs).flatten(0, 1)


def cotangent(z, moved):
    """(p - y + H z') / N, and the terms of the quadratic model."""
    with torch.no_grad():
        p, count = z.softmax(-1), len(z)
        mean = (p * moved).sum(-1, keepdim=True)
        curved = p * (moved - mean)
        loss = F.cross_entropy(z, targets)
        linear = (mean.squeeze(1) - moved.gather(1, targets[:, None]).squeeze(1)).mean()
        curvature = 0.5 * (curved * moved).sum() / count
        u = p + curved
        u[torch.arange(count), targets] -= 1
        return u / count, (loss, linear, curvature)


def by_func():
    z, moved = torch.func.jvp(lambda *values: logits(values), tuple(values), tuple(delta))
    u, terms = cotangent(z, moved)
    _, pull = torch.func.vjp(lambda *values: logits(values), *values)
    return terms, pull(u)


def by_forward():
    leaves = [value.detach().requires_grad_() for value in values]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(leaf, tangent) for leaf, tangent in zip(leaves, delta)]
        z, moved = forward_ad.unpack_dual(logits(duals))
        moved = moved.detach().clone()
    u, terms = cotangent(z.detach(), moved)
    return terms, torch.autograd.grad(z, leaves, u)


def by_curvlinops():
    global operator
    if operator is None:
        operator = build_operator()
    return None, operator @ delta


operator = None


class Module(torch.nn.Module):
    """The model as curvlinops takes it: parameters of a module."""

    def __init__(self):
        super().__init__()
        self.list = torch.nn.ParameterList([torch.nn.Parameter(value.clone()) for value in values])

    def forward(self, inputs):
        return model.logits(dict(zip(names, self.list)), inputs).flatten(0, 1)


def build_operator():
    from curvlinops import GGNLinearOperator

    module = Module()
    loss = torch.nn.CrossEntropyLoss(reduction="mean")
    return GGNLinearOperator(
        module, loss, list(module.parameters()), [(inputs, targets)], check_deterministic=False,
        batch_size_fn=lambda inputs: inputs.shape[0],
    )


def norm(tensors):
    return sum(tensor.detach().square().sum(dtype=torch.float64) for tensor in tensors).sqrt().item()


def check():
    terms, gradient = (by_func if side.name == "func" else by_forward)()
    if side.name == "curvlinops":
        _, product = by_curvlinops()
        plain = by_plain_gradient()
        gradient = [a + b for a, b in zip(plain, product)]
    return [term.item() for term in terms] + [norm(gradient)]


def by_plain_gradient():
    leaves = [value.detach().requires_grad_() for value in values]
    return torch.autograd.grad(F.cross_entropy(logits(leaves), targets), leaves)


run = {"func": by_func, "forward": by_forward, "curvlinops": by_curvlinops}[side.name]
side.serve(lambda: {"seconds": seconds(run)}, check())
