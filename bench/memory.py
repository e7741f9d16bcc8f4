"""The peak memory of a training step of paper-45m with AdamW: what the process holds beyond its libraries."""

import torch

from drive import Side, split
from model import Transformer


def resident(field):
    """A field of /proc/self/status in bytes: VmRSS now, VmHWM at the peak."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field))
    return 1024 * int(line.split()[1])


def forget_peak():
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")


side = Side()
(torch.randn(64, 64) @ torch.randn(64, 64)).sum()
before = resident("VmRSS")
params, tokens = split(side.inputs())
params = {name: param.clone().requires_grad_() for name, param in params.items()}
model = Transformer(num_layers=4, num_heads=8, width=512)
optimizer = torch.optim.AdamW(params.values(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def step():
    optimizer.zero_grad()
    loss = model.loss(params, tokens)
    loss.backward()
    optimizer.step()
    return loss.item()


def peak():
    forget_peak()
    step()
    return {"bytes": resident("VmHWM") - before}


losses = [step() for _ in range(3)]
side.serve(peak, losses)
