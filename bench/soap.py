"""One step of SOAP between refreshes of its eigenbases, on the hidden matrices of paper-45m: the algorithm of Vyas et al.
(arXiv 2409.11321) in the form and order of operations of its authors' optimizer, a matrix at a time.
"""

import torch

from drive import Side, seconds

LR, BETA1, BETA2, EPS, WEIGHT_DECAY = 1e-3, 0.95, 0.95, 1e-8, 0.01


class State:
    def __init__(self, gradient):
        """The first step: factors from the gradient, bases from the factors; no update."""
        self.left = (1 - BETA2) * torch.tensordot(gradient, gradient, dims=[[1], [1]])
        self.right = (1 - BETA2) * torch.tensordot(gradient, gradient, dims=[[0], [0]])
        self.left_basis = torch.linalg.eigh(self.left)[1].flip(1)
        self.right_basis = torch.linalg.eigh(self.right)[1].flip(1)
        self.first_moment = torch.zeros_like(gradient)
        self.second_moment = torch.zeros_like(gradient)
        self.steps = 0

    def project(self, x):
        x = torch.tensordot(x, self.left_basis, dims=[[0], [0]])
        return torch.tensordot(x, self.right_basis, dims=[[0], [0]])

    def project_back(self, x):
        x = torch.tensordot(x, self.left_basis, dims=[[0], [1]])
        return torch.tensordot(x, self.right_basis, dims=[[0], [1]])

    def update_factors(self, gradient):
        self.left.lerp_(torch.tensordot(gradient, gradient, dims=[[1], [1]]), 1 - BETA2)
        self.right.lerp_(torch.tensordot(gradient, gradient, dims=[[0], [0]]), 1 - BETA2)

    def step(self, param, gradient):
        projected = self.project(gradient)
        self.steps += 1
        self.first_moment.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
        self.second_moment.mul_(BETA2).add_(projected.square(), alpha=1 - BETA2)
        denominator = self.second_moment.sqrt().add_(EPS)
        size = LR * (1 - BETA2**self.steps) ** 0.5 / (1 - BETA1**self.steps)
        update = self.project_back(self.project(self.first_moment) / denominator)
        param.add_(update, alpha=-size)
        param.add_(param, alpha=-LR * WEIGHT_DECAY)
        self.update_factors(gradient)


side = Side()
params = list(side.inputs().values())
gradients = [1e-3 * param for param in params]
states = [State(gradient) for gradient in gradients]


@torch.no_grad()
def step():
    for state, param, gradient in zip(states, params, gradients):
        state.step(param, gradient)


step()
norm = sum(param.square().sum(dtype=torch.float64) for param in params).sqrt()
side.serve(lambda: {"seconds": seconds(step)}, [norm.item()])
