"""Makes loop.safetensors: the loop of full and layerwise Gauss-Newton on a small model, in float64.

Needs torch and safetensors:  python loop.py

The subproblem's gradients come from dense Jacobians and Hessians by torch.func, one layer after the other in the
layerwise loop, each with an optimizer of its own. Nothing here is shared with the code under test.
"""

import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from torch.func import hessian, jacrev

torch.set_default_dtype(torch.float64)

WORDS, WIDTH, HIDDEN, SEQ_LEN = 5, 3, 4, 3
SHAPES = {
    "embedding": (WORDS, WIDTH),
    "norm": (WIDTH,),
    "hidden.weight": (HIDDEN, WIDTH),
    "hidden.bias": (HIDDEN,),
    "head.weight": (WORDS, HIDDEN),
}
LAYERS = [["embedding"], ["norm", "hidden.weight", "hidden.bias"], ["head.weight"]]
GROUPS = [["embedding", "head.weight"], ["norm", "hidden.weight", "hidden.bias"]]
OUTER, INNER, INNER_SEQUENCES = 4, 3, 2
EMA_DECAY = 0.9


def logits(params, words):
    hidden = torch.tanh((params["norm"] * params["embedding"][words]) @ params["hidden.weight"].T + params["hidden.bias"])
    return hidden @ params["head.weight"].T


def mean_loss(z, targets):
    return torch.nn.functional.cross_entropy(z, targets)


def loss_at(params, batch):
    return mean_loss(logits(params, batch[..., 0]).reshape(-1, WORDS), batch[..., 1].reshape(-1)).item()


def flat(params):
    return torch.cat([params[name].reshape(-1) for name in SHAPES])


def subproblem(theta, delta, batch, model):
    """Gradient of the model in the parameters that `delta` names, all others held at theta."""
    words, targets = batch[..., 0].reshape(-1), batch[..., 1].reshape(-1)

    def outputs(moving):
        return logits({**theta, **moving}, words)

    anchor = {name: theta[name] for name in delta}
    z0, jacobian = outputs(anchor), jacrev(outputs)(anchor)
    tangent = sum(
        torch.tensordot(jacobian[name], delta[name], dims=delta[name].dim()) for name in delta
    )
    of_z = lambda z: mean_loss(z, targets)
    if model == "quadratic":
        second = hessian(of_z)(z0)
        cotangent = jacrev(of_z)(z0) + torch.einsum("ijkl,kl->ij", second, tangent)
    else:
        cotangent = jacrev(of_z)(z0 + tangent)
    return {name: torch.tensordot(cotangent, jacobian[name], dims=2) for name in delta}


def clip(gradient, parts, max_norm):
    clipped = dict(gradient)
    for part in parts:
        names = [name for name in part if name in gradient]
        norm = math.sqrt(sum(gradient[name].square().sum().item() for name in names))
        if norm > max_norm:
            clipped |= {name: gradient[name] * (max_norm / norm) for name in names}
    return clipped


class Sgd:
    def __init__(self, lr, momentum):
        self.lr, self.momentum, self.velocity = lr, momentum, {}

    def step(self, phi, gradient, multiplier):
        for name, g in gradient.items():
            self.velocity[name] = self.momentum * self.velocity.get(name, torch.zeros_like(g)) + g
            phi[name] = phi[name] - self.lr * multiplier * self.velocity[name]


class AdamW:
    """torch.optim.AdamW on parameters that it owns."""

    def __init__(self, lr, betas, eps, weight_decay):
        self.settings = dict(betas=tuple(betas), eps=eps, weight_decay=weight_decay)
        self.lr, self.owned, self.optimizer = lr, None, None

    def step(self, phi, gradient, multiplier):
        if self.owned is None:
            self.owned = {name: phi[name].clone().requires_grad_() for name in gradient}
            self.optimizer = torch.optim.AdamW(self.owned.values(), lr=self.lr, **self.settings)
        self.optimizer.param_groups[0]["lr"] = self.lr * multiplier
        for name, value in self.owned.items():
            value.data.copy_(phi[name])
            value.grad = gradient[name].clone()
        self.optimizer.step()
        for name, value in self.owned.items():
            phi[name] = value.detach().clone()


def make_rule(inner):
    (name, settings), = inner.items()
    return Sgd(**settings) if name == "sgd" else AdamW(**settings)


def multiplier(config, t, i):
    x = t if config.get("outer_at") == "step" else t + i / INNER
    outer = 0.5 * (1 + math.cos(math.pi * x / OUTER))
    inner = 0.5 * (1 + math.cos(math.pi * i / INNER)) if config.get("inner_schedule") == "cosine" else 1.0
    return outer * inner


def run(layerwise, config, theta, streams):
    """The whole loop. `streams` gives [sequence, token, (word, target)] for solving and for the line search."""
    theta, phi = dict(theta), dict(theta)
    solved = searched = grid_end = 0
    parts = LAYERS if layerwise else [list(SHAPES)]
    rules = [make_rule(config["inner"]) for _ in parts]
    trace = {key: [] for key in ["gradients", "iterates", "losses", "alphas", "params", "ema", "counters"]}
    average = None
    solve, search = streams
    shared = config.get("line_search_stream") == "shared"
    for t in range(OUTER):
        if config.get("warm_start") == "none":
            phi, rules = dict(theta), [make_rule(config["inner"]) for _ in parts]
        batches = [solve[solved + i * INNER_SEQUENCES:][:INNER_SEQUENCES] for i in range(INNER)]
        solved += INNER * INNER_SEQUENCES
        gradients, iterates = [{} for _ in range(INNER)], [{} for _ in range(INNER)]
        for part, rule in zip(parts, rules):
            own = {name: phi[name] for name in part}
            for i, batch in enumerate(batches):
                delta = {name: own[name] - theta[name] for name in part}
                gradient = subproblem(theta, delta, batch, config["model"])
                for name in part:
                    gradient[name] = gradient[name] + config.get("tikhonov", 0.0) * delta[name]
                if "clip_norm" in config:
                    gradient = clip(gradient, [part] if layerwise else GROUPS, config["clip_norm"])
                rule.step(own, gradient, multiplier(config, t, i))
                gradients[i] |= gradient
                iterates[i] |= own
            phi |= own
        trace["gradients"] += [flat(gradient) for gradient in gradients]
        trace["iterates"] += [flat(iterate) for iterate in iterates]
        alpha = 1.0
        if config.get("line_search", True):
            sizes = [0.0] + [2 ** (-i / 2) for i in range(config["line_search_candidates"])]
            source, start = (solve, solved) if shared else (search, searched)
            fresh = [source[start + i * INNER_SEQUENCES:][:INNER_SEQUENCES] for i in range(INNER)]
            solved += INNER * INNER_SEQUENCES if shared else 0
            searched += 0 if shared else INNER * INNER_SEQUENCES
            at = lambda size: {name: theta[name] + size * (phi[name] - theta[name]) for name in theta}
            losses = [sum(loss_at(at(size), batch) for batch in fresh) / INNER for size in sizes]
            best = min(range(1, len(sizes)), key=lambda i: losses[i])
            grid_end += best == len(sizes) - 1
            alpha = sizes[best]
            trace["losses"].append(torch.tensor(losses))
            theta = at(alpha)
        else:
            theta = dict(phi)
            if not layerwise:
                for iterate in trace["iterates"][-INNER:]:
                    average = iterate if average is None else EMA_DECAY * average + (1 - EMA_DECAY) * iterate
                trace["ema"].append(average)
        trace["alphas"].append(torch.tensor(alpha))
        trace["params"].append(flat(theta))
        trace["counters"].append(torch.tensor([float(grid_end), float(solved), float(searched)]))
    return {key: torch.stack(rows) for key, rows in trace.items() if rows}


SGD = {"sgd": {"lr": 1.5, "momentum": 0.5}}
ADAMW = {"adamw": {"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.05}}
SEARCH = {"line_search_candidates": 6}
GLOBAL_INNER = {"outer_at": "step", "inner_schedule": "cosine"}


def cases():
    for layerwise in [False, True]:
        for model in ["quadratic", "prox_linear"]:
            name = f"{'layerwise' if layerwise else 'full'}-{model}"
            yield f"{name}-sgd", layerwise, {"inner": SGD, "model": model, "clip_norm": 0.3, **SEARCH}
            yield f"{name}-adamw", layerwise, {"inner": ADAMW, "model": model, "tikhonov": 0.05, **GLOBAL_INNER, **SEARCH}
    plain = {"inner": ADAMW, "model": "quadratic", "line_search": False}
    yield "full-without-search", False, plain
    yield "layerwise-without-search", True, plain
    again = {"inner": SGD, "model": "quadratic", "warm_start": "none", "line_search_stream": "shared", **SEARCH}
    yield "full-reset-shared", False, again


def main():
    torch.manual_seed(20251)
    torch.set_num_threads(1)
    sequences = 2 * OUTER * INNER * INNER_SEQUENCES
    words = torch.randint(WORDS, (2, sequences, SEQ_LEN))
    confusion = torch.softmax(1.5 * torch.randn(WORDS, WORDS), dim=1)
    targets = torch.multinomial(confusion[words.reshape(-1)], 1).reshape(words.shape)
    streams = torch.stack([words, targets], dim=-1)
    theta = {name: 0.6 * torch.randn(shape) for name, shape in SHAPES.items()}
    theta["norm"] = 1 + 0.3 * torch.randn(WIDTH)
    tensors = {"tokens.step": streams[0], "tokens.line_search": streams[1], "params": flat(theta)}
    configs = {}
    for name, layerwise, config in cases():
        trace = run(layerwise, config, theta, streams)
        tensors |= {f"{name}.{key}": value for key, value in trace.items()}
        configs[name] = {"layerwise": layerwise, "config": {**config, "inner_batch_size": INNER_SEQUENCES}}
        print(name, trace["alphas"].tolist(), trace["counters"][-1].tolist())
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    metadata = {"cases": json.dumps(configs), "reference": f"loop.py, torch {torch.__version__}"}
    save_file(tensors, pathlib.Path(__file__).with_name("loop.safetensors"), metadata)


main()
