"""One step of Muon as Keller Jordan wrote it, in PyTorch and in single precision, on the hidden matrices of paper-45m.

`torch.optim.Muon` orthogonalises in bfloat16, which a processor without that type emulates, so it is not raced here.
"""

import torch

from drive import Side, seconds

LR, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.95, 0.1
A, B, C = 3.4445, -4.7750, 2.0315

side = Side()
params = list(side.inputs().values())
gradients = [1e-3 * param for param in params]
momenta = [torch.zeros_like(param) for param in params]


def orthogonalise(x, steps=5):
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = A * x + (B * a + C * a @ a) @ x
    return x.T if tall else x


@torch.no_grad()
def step():
    for param, gradient, momentum in zip(params, gradients, momenta):
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalise(gradient.lerp(momentum, MOMENTUM))
        scale = max(1, param.shape[0] / param.shape[1]) ** 0.5
        param.mul_(1 - LR * WEIGHT_DECAY).add_(update, alpha=-LR * scale)


step()
step()
norm = sum(param.square().sum(dtype=torch.float64) for param in params).sqrt()
side.serve(lambda: {"seconds": seconds(step)}, [norm.item()])
