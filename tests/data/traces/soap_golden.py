"""Prints the golden values of plugins/soap/src/tests.rs: SOAP on one 2 x 2 matrix, the authors' algorithm in float64.

Usage: python soap_golden.py    (torch 2.13.0)
"""

import math

import torch

torch.set_default_dtype(torch.float64)
LR, B1, B2, EPS, FREQUENCY = 0.1, 0.9, 0.95, 1e-8, 2
GRADIENTS = [
    [[1.0, 2.0], [0.5, -1.0]],
    [[0.2, -0.4], [1.0, 0.3]],
    [[-0.5, 0.1], [0.7, 0.9]],
    [[0.3, 0.3], [-0.2, 0.6]],
]


def eigenvectors(a):
    return torch.linalg.eigh(a)[1].flip(1)


def refreshed(a, q, v, dim):
    order = torch.argsort(torch.diag(q.T @ a @ q), descending=True)
    return torch.linalg.qr(a @ q[:, order])[0], v.index_select(dim, order)


w = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
left, right, m, v = (torch.zeros(2, 2) for _ in range(4))
for t, g in enumerate(torch.tensor(GRADIENTS)):
    if t == 0:
        left, right = (1 - B2) * g @ g.T, (1 - B2) * g.T @ g
        ql, qr = eigenvectors(left), eigenvectors(right)
    else:
        rotated = ql.T @ g @ qr
        m, v = B1 * m + (1 - B1) * rotated, B2 * v + (1 - B2) * rotated**2
        size = LR * math.sqrt(1 - B2**t) / (1 - B1**t)
        w = w - size * ql @ (m / (v.sqrt() + EPS)) @ qr.T
        original = ql @ m @ qr.T
        left, right = B2 * left + (1 - B2) * g @ g.T, B2 * right + (1 - B2) * g.T @ g
        if t % FREQUENCY == 0:
            ql, v = refreshed(left, ql, v, 0)
            qr, v = refreshed(right, qr, v, 1)
        m = ql.T @ original @ qr
    print([round(x, 12) for x in w.flatten().tolist()])
