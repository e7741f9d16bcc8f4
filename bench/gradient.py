"""The gradient of a small transformer: eager, or compiled by `torch.compile`."""

import torch

from drive import Side, seconds, split
from model import Transformer

side = Side()
params, tokens = split(side.inputs())
params = {name: param.requires_grad_() for name, param in params.items()}
model = Transformer(num_layers=4, num_heads=4, width=256)
loss = torch.compile(model.loss) if side.name == "compile" else model.loss


def gradient():
    value = loss(params, tokens)
    return value, torch.autograd.grad(value, list(params.values()))


value, gradients = gradient()
norm = sum(gradient.square().sum(dtype=torch.float64) for gradient in gradients).sqrt()
side.serve(lambda: {"seconds": seconds(gradient, repeats=2)}, [value.item(), norm.item()])
