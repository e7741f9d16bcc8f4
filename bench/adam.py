"""One step of `torch.optim.AdamW(fused=True)` on the parameters of paper-45m."""

import torch

from drive import Side, seconds

side = Side()
params = [param.requires_grad_() for param in side.inputs().values()]
for param in params:
    param.grad = 1e-3 * param.detach()
optimizer = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
optimizer.step()
optimizer.step()
norm = sum(param.detach().square().sum(dtype=torch.float64) for param in params).sqrt()
side.serve(lambda: {"seconds": seconds(optimizer.step, repeats=4)}, [norm.item()])
