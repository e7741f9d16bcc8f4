"""The benchmark's transformer in PyTorch: the host's model, written as one would write it there.

Parameters come by the host's names. The options are those of the study's models: GELU in its tanh approximation,
interleaved rotary embeddings, LayerNorm on q and k over their whole width, an untied head, no biases in linear layers.
"""

import torch
import torch.nn.functional as F

EPS = 1e-6
ROPE_THETA = 1e4


class Transformer:
    """A decoder-only transformer as a function of its parameters, a dict by name."""

    def __init__(self, num_layers, num_heads, width, attention="fused"):
        self.num_layers, self.num_heads, self.width = num_layers, num_heads, width
        self.attention = attention
        self.rotations = {}

    def rotation(self, length):
        """cos + i sin of every position and plane, [length, 1, head_width / 2]."""
        if length not in self.rotations:
            head_width = self.width // self.num_heads
            frequencies = ROPE_THETA ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
            angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
            self.rotations[length] = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None]
        return self.rotations[length]

    def rotate(self, x):
        """Rotates x [batch, positions, width]; gives heads [batch, heads, positions, head_width]."""
        planes = torch.view_as_complex(x.unflatten(-1, (self.num_heads, -1, 2)))
        return torch.view_as_real(planes * self.rotation(x.shape[1])).flatten(-2).transpose(1, 2)

    def attend(self, q, k, v):
        if self.attention == "fused":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        length = q.shape[-2]
        mask = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
        return (scores + mask).softmax(-1) @ v

    def block(self, params, layer_idx, x):
        p = lambda name: params[f"blocks.{layer_idx}.{name}"]
        norm = lambda x, name: F.layer_norm(x, (self.width,), p(f"{name}.weight"), p(f"{name}.bias"), EPS)
        y = F.rms_norm(x, (self.width,), p("norm1.weight"), EPS)
        q = self.rotate(norm(F.linear(y, p("attn.q.weight")), "attn.q_norm"))
        k = self.rotate(norm(F.linear(y, p("attn.k.weight")), "attn.k_norm"))
        v = F.linear(y, p("attn.v.weight")).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        x = x + F.linear(self.attend(q, k, v).transpose(1, 2).flatten(2), p("attn.o.weight"))
        y = F.rms_norm(x, (self.width,), p("norm2.weight"), EPS)
        return x + F.linear(F.gelu(F.linear(y, p("mlp.up.weight")), approximate="tanh"), p("mlp.down.weight"))

    def logits(self, params, tokens):
        """Scores of the next token: tokens int64 [batch, positions], result [batch, positions, vocabulary]."""
        x = F.embedding(tokens, params["embed.weight"])
        for layer_idx in range(self.num_layers):
            x = self.block(params, layer_idx, x)
        return F.linear(F.rms_norm(x, (self.width,), params["norm.weight"], EPS), params["head.weight"])

    def loss(self, params, tokens):
        """Mean cross entropy in nats: tokens int64 [batch, positions + 1]."""
        logits = self.logits(params, tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
