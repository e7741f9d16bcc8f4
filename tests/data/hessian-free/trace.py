"""Makes trace.safetensors: Hessian-free optimization on a small model, in float64, with dense matrices.

Needs torch and safetensors:  python trace.py

Written from Martens, "Deep learning via Hessian-free optimization" (ICML 2010), with the model of
../gauss-newton/loop.py: an explicit matrix G, an explicit preconditioner, an explicit list of kept iterates.
"""

import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from torch.func import grad, hessian, jacrev

torch.set_default_dtype(torch.float64)

WORDS, WIDTH, HIDDEN, SEQ_LEN = 5, 3, 4, 3
SIZES = [WORDS * WIDTH, WIDTH, HIDDEN * WIDTH, HIDDEN, WORDS * HIDDEN]
STEPS, SEQUENCES = 12, 8  # of the stream; a case has as many steps or fewer


def logits(theta, words):
    embedding, norm, hidden, bias, head = torch.split(theta, SIZES)
    inputs = norm * embedding.reshape(WORDS, WIDTH)[words]
    return torch.tanh(inputs @ hidden.reshape(HIDDEN, WIDTH).T + bias) @ head.reshape(WORDS, HIDDEN).T


def objective(theta, batch):
    z = logits(theta, batch[..., 0].reshape(-1))
    return torch.nn.functional.cross_entropy(z, batch[..., 1].reshape(-1))


def gauss_newton(theta, batch):
    words, targets = batch[..., 0].reshape(-1), batch[..., 1].reshape(-1)
    jacobian = jacrev(lambda theta: logits(theta, words).reshape(-1))(theta)
    of_z = lambda z: torch.nn.functional.cross_entropy(z.reshape(-1, WORDS), targets)
    return jacobian.T @ hessian(of_z)(logits(theta, words).reshape(-1)) @ jacobian


def kept_after():
    j = 0
    while True:
        yield math.ceil(5 * 1.3**j)
        j += 1


def conjugate_gradients(matrix, b, x, diagonal, max_iterations):
    """Iterates by number: the kept ones and the last."""
    residual = b - matrix @ x
    y = residual / diagonal
    direction, rho = y.clone(), residual @ y
    keep, keeping, values = {}, kept_after(), []
    due = next(keeping)
    for i in range(1, max_iterations + 1):
        along = matrix @ direction
        alpha = rho / (direction @ along)
        x = x + alpha * direction
        residual = b - matrix @ x if i % 10 == 0 else residual - alpha * along
        y = residual / diagonal
        rho_new = residual @ y
        direction, rho = y + rho_new / rho * direction, rho_new
        values.append((0.5 * x @ (matrix @ x) - b @ x).item())
        if i == due:
            keep[i], due = x, next(keeping)
        k = max(10, math.ceil(0.1 * i))
        if i > k and values[i - 1 - k] < 0 and (values[-1] - values[i - 1 - k]) / values[-1] < 5e-4 * k:
            break
    keep[i] = x
    return keep


def run(config, steps, theta, stream):
    trace = {"params": [], "numbers": []}
    damping, last = config["damping"], torch.zeros_like(theta)
    for t in range(steps):
        batch = stream[t * SEQUENCES:][:SEQUENCES]
        part = batch[: config.get("curvature_batch_size", SEQUENCES)]
        loss, gradient = objective(theta, batch).item(), grad(objective)(theta, batch)
        squares = torch.stack([grad(objective)(theta, sequence[None]) ** 2 for sequence in batch]).mean(0)
        curvature = gauss_newton(theta, part)
        system = curvature + damping * torch.eye(len(theta))
        keep = conjugate_gradients(
            system, -gradient, 0.95 * last, (squares + damping) ** 0.75, config["max_iterations"]
        )
        iterations, last = max(keep), keep[max(keep)]
        at = lambda step: objective(theta + step, batch).item()
        chosen = iterations
        for i in sorted(keep, reverse=True)[1:]:
            if at(keep[i]) > at(keep[chosen]):
                break
            chosen = i
        step = keep[chosen]
        change = (objective(theta + step, part) - objective(theta, part)).item()
        predicted = (0.5 * step @ curvature @ step + gradient @ step).item()
        ratio = -math.inf if change > 0 else change / predicted
        used = damping
        if ratio < 0.25:
            damping *= 1.5
        elif ratio > 0.75:
            damping *= 2 / 3
        size, slope = 1.0, (gradient @ step).item()
        for _ in range(60):
            if at(size * step) <= loss + 0.01 * size * slope:
                break
            size *= 0.8
        else:
            size = 0.0
        theta = theta + size * step
        trace["params"].append(theta)
        trace["numbers"].append(torch.tensor([loss, used, iterations, chosen, change, predicted, size]))
        print(f"{loss:.5f} {used:.4f} {iterations} {chosen} {ratio:.4f} {size:.4f}")
    return {key: torch.stack(rows) for key, rows in trace.items()}


# Steps are as many as a change of 1e-15 in the start leaves below 1e-10: conjugate gradients lose conjugacy on
# ill-conditioned systems, and the loss is not convex.
CASES = {
    "whole": ({"damping": 0.5, "max_iterations": 60}, 6),
    "whole-short": ({"damping": 0.1, "max_iterations": 9}, 12),
    "part": ({"damping": 0.3, "max_iterations": 60, "curvature_batch_size": 3}, 4),
    "part-short": ({"damping": 0.1, "max_iterations": 9, "curvature_batch_size": 3}, 11),
}


def main():
    torch.manual_seed(20252)
    torch.set_num_threads(1)
    words = torch.randint(WORDS, (STEPS * SEQUENCES, SEQ_LEN))
    confusion = torch.softmax(1.5 * torch.randn(WORDS, WORDS), dim=1)
    stream = torch.stack([words, torch.multinomial(confusion[words.reshape(-1)], 1).reshape(words.shape)], dim=-1)
    theta = 0.6 * torch.randn(sum(SIZES))
    tensors = {"tokens": stream, "params": theta}
    for name, (config, steps) in CASES.items():
        print(name)
        tensors |= {f"{name}.{key}": value for key, value in run(config, steps, theta, stream).items()}
    configs = {name: config for name, (config, _) in CASES.items()}
    metadata = {"cases": json.dumps(configs), "reference": f"trace.py, torch {torch.__version__}"}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, pathlib.Path(__file__).with_name("trace.safetensors"), metadata)


main()
