"""Writes the corpora beside this file: small inputs by hand, a folder a target of `host/src/fuzzed.rs`.

`good-*` has to be accepted, `bad-*` refused, any other only answered. `manifest/good-*` are of real checkpoints and are
not written here: their checksums are of the program's own JSON.
"""

import json
import struct
from pathlib import Path

HERE = Path(__file__).parent


def write(target, name, content):
    folder = HERE / target
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


LEAST = '[data]\ntrain = "a"\n[optimizer]\nplugin = "adam"\n[train]\nmax_steps = 10\n'

CONFIGS = {
    "good-least": LEAST,
    "good-more": "\ufeff# a byte order mark before, a plugin's own table behind\n"
    '[run]\nseed = 7\ndtype = "f64"\n[model]\npreset = "tiny"\nwidth = 64\n'
    '[data]\ntrain = ["a", "b"]\nseq_len = 32\nbatch_size = 4\norder = "sequential"\n'
    '[optimizer]\nplugin = "./libx.so"\n[optimizer.config]\nlr = 1e-3\nbetas = [0.9, 0.95]\n'
    '[schedule]\nkind = "cosine"\nwarmup_steps = 2\n[train]\nmax_steps = 10\n[ema]\ndecay = 0.99\n',
    "bad-empty": "",
    "bad-not-toml": "[run\nseed = 1\n",
    "bad-not-utf8": LEAST.encode() + b"# \xff\xfe\n",
    "bad-keys": LEAST + "max_stps = 3\n[evall]\nbatches = 1\n",
    "bad-values": LEAST + 'max_tokens = -1\non_error = "perhaps"\n[run]\nseed = nan\n',
    "bad-types": 'data = 3\noptimizer = [1, {x = 2}]\ntrain = 1979-05-27T07:32:00Z\n',
    "bad-conflict": LEAST + '[schedule]\nkind = "linear"\nwarmup_steps = 99\n',
    "bad-twice": LEAST + "[data]\ntrain = 'b'\n",
    "bad-nested": "model = " + "[" * 200 + "]" * 200 + "\n",
    "bad-control": '[run]\n"a\\nb\\u001b" = 1\n',
}

REQUESTS = {
    "metrics": "GET /metrics HTTP/1.1\r\nHost: localhost:9464\r\nAccept: */*\r\n\r\n",
    "health": "GET /healthz HTTP/1.0\n\n",
    "query": "GET /metrics?name[]=x&y HTTP/1.1\r\n\r\n",
    "post": "POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    "other": "GET /../../etc/passwd HTTP/1.1\r\n\r\n",
    "short": "GET /met",
    "no-version": "GET /metrics\r\n\r\n",
    "not-text": b"GET /\xff\xfe\x00 HTTP/1.1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
    "http2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "spaces": "GET   /metrics   HTTP/1.1\r\n\r\n",
    "empty-lines": "\r\n\r\n\r\n",
}


def shard(magic, version, tokens, body, size=1024):
    return struct.pack("<3i", magic, version, tokens).ljust(size, b"\0") + body


IDS = struct.pack("<5H", 0, 104, 105, 10, 65535)

SHARDS = {
    "good-llmc16": shard(20240520, 1, 5, IDS),
    "good-llmc32": shard(20240801, 7, 2, struct.pack("<2I", 128000, 7)),
    "good-headerless": IDS,
    "bad-empty": b"",
    "bad-no-tokens": shard(20240520, 1, 0, b""),
    "bad-odd": IDS + b"x",
    "bad-version": shard(20240520, 2, 5, IDS),
    "bad-count": shard(20240520, 1, 2147483647, IDS),
    "bad-negative": shard(20240520, 1, -5, IDS),
    "bad-cut": shard(20240520, 1, 5, IDS)[:-1],
    "bad-header-cut": shard(20240520, 1, 5, b"", 40),
    "bad-evaluation": shard(20240522, 1, 5, IDS),
    "bad-big-endian": struct.pack(">3i", 20240520, 1, 5).ljust(1024, b"\0") + IDS,
    "bad-other-version": shard(20240801, 1, 2, struct.pack("<2I", 1, 2)),
    "bad-count-of-32-bits": shard(20240801, 7, 5, IDS),
    "bad-zeros": bytes(1024),
    "other-padding": struct.pack("<4i", 20240520, 1, 5, -1).ljust(1024, b"\7") + IDS,
}

LINE = '{"text": "One line, \\u00e9 and \\"quotes\\"."}\n'

LINES = {
    "good-lines": LINE + '{"id": 7, "meta": {"text": [null, 1e300]}, "text": "two"}\r\n',
    "good-no-end": LINE + '{"text": ""}',
    "good-nothing": "",
    "bad-blank": LINE + "\n" + LINE,
    "bad-cut": LINE + LINE[:20],
    "bad-field": '{"txt": "a"}\n',
    "bad-type": '{"text": ["a"]}\n',
    "bad-null": '{"text": null}\n',
    "bad-list": '["text", "a"]\n',
    "bad-mark": "\ufeff" + LINE,
    "bad-not-utf8": b'{"text": "\xff"}\n',
    "bad-zero": '{"text": "\\u0000"}\n',
    "bad-surrogate": '{"text": "\\ud800"}\n',
    "bad-twice": '{"text": "a", "text": "b"}\n',
    "bad-nested": '{"other": ' + "[" * 3000 + "\n",
    "bad-behind": '{"text": "a"} x\n',
}


def tokenizer(model=None, rule=None, added=None):
    ends = {"id": 0, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [ends] if added is None else added,
            "normalizer": None,
            "pre_tokenizer": rule,
            "post_processor": None,
            "decoder": None,
            "model": BPE if model is None else {**BPE, **model},
        }
    )


BPE = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "vocab": {"<|endoftext|>": 0, "e": 1, "t": 2, "x": 3, "te": 4, "xt": 5, "text": 6},
    "merges": [["t", "e"], ["x", "t"], ["te", "xt"]],
}
WORDS = {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "text": 1, "?": 2}, "unk_token": "?"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def expression(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


TOKENIZERS = {
    "good-bpe": tokenizer(rule=BYTES),
    "good-words": json.dumps({**json.loads(tokenizer()), "model": WORDS, "pre_tokenizer": {"type": "Whitespace"}}),
    "bad-empty": "",
    "bad-no-model": "{}",
    "bad-model": tokenizer({"type": "Nothing"}),
    "bad-merge": tokenizer({"merges": [["t", "q"]]}),
    "bad-merge-twice": tokenizer({"merges": [["t", "e"], ["t", "e"]]}),
    "bad-id-twice": tokenizer({"vocab": {**BPE["vocab"], "q": 3}}),
    "bad-gap": tokenizer({"vocab": {**BPE["vocab"], "q": 4000000000}}),
    "bad-id": tokenizer({"vocab": {**BPE["vocab"], "q": -1}}),
    "bad-no-separator": tokenizer({"vocab": {"t": 0, "e": 1, "te": 2}, "merges": [["t", "e"]]}, added=[]),
    "bad-expression": tokenizer(rule=expression("(unclosed")),
    "bad-rule": tokenizer(rule={"type": "Guess"}),
    "bad-nested": '{"model": ' + "[" * 3000,
    "other-expression": tokenizer(rule=expression("(?:(?=a)a+)+(?!b)$")),
}


def safetensors(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONE = struct.pack("<3f", 1.0, -2.5, float("nan"))

VECTORS = {
    "good-f32": safetensors({"a": tensor("F32", [3], 0, 12)}, ONE),
    "good-types": safetensors(
        {
            "__metadata__": {"made": "by hand"},
            "h": tensor("F16", [2, 1], 0, 4),
            "b": tensor("BF16", [2], 4, 8),
            "i": tensor("I32", [1], 8, 12),
            "t": tensor("I64", [], 12, 20),
            "d": tensor("F64", [0, 7], 20, 20),
        },
        bytes(range(20)),
    ),
    "good-nothing": safetensors({}, b""),
    "bad-empty": b"",
    "bad-text": b"not a file of tensors",
    "bad-length": struct.pack("<Q", 1 << 63) + b"{}",
    "bad-beyond": safetensors({"a": tensor("F32", [3], 0, 99)}, ONE),
    "bad-backwards": safetensors({"a": tensor("F32", [3], 12, 0)}, ONE),
    "bad-overflow": safetensors({"a": tensor("F32", [4294967296, 4294967296], 0, 12)}, ONE),
    "bad-hole": safetensors({"a": tensor("F32", [2], 4, 12)}, ONE),
    "bad-type": safetensors({"a": tensor("U8", [12], 0, 12)}, ONE),
    "bad-nested": safetensors(b'{"a":' + b"[" * 300, b""),
    "bad-name": safetensors({"a\n\x1b[2J": tensor("U16", [6], 0, 12)}, ONE),
}


def trace(metadata=None, tensors=None, data=None):
    texts = {
        "optimizer": "sgd",
        "reference": "by hand",
        "config": '{"lr":0.5}',
        "params": '[{"name":"w","role":"hidden","layer":0}]',
        "steps": "1",
        "dtype": "float64",
    }
    texts.update(metadata or {})
    names = tensors or {
        "after/1/w": tensor("F64", [2], 0, 16),
        "grad/1/w": tensor("F64", [2], 16, 32),
        "param/w": tensor("F64", [2], 32, 48),
    }
    values = struct.pack("<6d", 0.5, -1.0, 1.0, 2.0, 1.0, 0.0) if data is None else data
    return safetensors({"__metadata__": texts, **names}, values)


HALF = {
    "after/1/w": tensor("F32", [2], 0, 8),
    "grad/1/w": tensor("F32", [2], 8, 16),
    "param/w": tensor("F32", [2], 16, 24),
}

TRACES = {
    "good-one-step": trace(),
    "good-f32": trace({"dtype": "float32"}, HALF, struct.pack("<6f", 0.5, -1, 1, 2, 1, 0)),
    "bad-empty": b"",
    "bad-no-metadata": safetensors({"param/w": tensor("F64", [1], 0, 8)}, bytes(8)),
    "bad-steps": trace({"steps": "18446744073709551615"}),
    "bad-many-steps": trace({"steps": "1000000"}),
    "bad-dtype": trace({"dtype": "float8"}),
    "bad-config": trace({"config": "[1"}),
    "bad-role": trace({"params": '[{"name":"w","role":"leg"}]'}),
    "bad-twice": trace({"params": '[{"name":"w","role":"hidden"},{"name":"w","role":"hidden"}]'}),
    "bad-missing": trace({"params": '[{"name":"v","role":"hidden"}]'}),
    "bad-layer": trace({"params": '[{"name":"w","role":"hidden","layer":9223372036854775808}]'}),
    "bad-extra": trace(tensors={**HALF, "x": tensor("F64", [3], 24, 48)}),
}


def elf(note=None, kind=3, machine=62, interpreter=False, cut=None):
    """Header, program headers, note, interpreter; no sections."""
    descriptor = b"GAUNTLET" + struct.pack("<4I", 1, 0, 0, 1) + b"rustc 1.95.0".ljust(64, b"\0") if note is None else note
    body = struct.pack("<3I", 9, len(descriptor), 1) + b"Gauntlet\0\0\0\0" + descriptor
    count = 2 + interpreter
    at = 64 + 56 * count
    end = at + len(body)
    segment = lambda kind, begin, size: struct.pack("<IIQQQQQQ", kind, 4, begin, begin, begin, size, size, 4)
    segments = segment(1, 0, end) + segment(4, at, len(body)) + (segment(3, at, 1) if interpreter else b"")
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, count, 64, 0, 0
    )
    return (head + segments + body)[:cut]


FULL = b"GAUNTLET" + struct.pack("<4I", 1, 0, 0, 1) + b"rustc".ljust(64, b"\0")

ELFS = {
    "good-plugin": elf(),
    "good-longer-note": elf(FULL + b"later versions add"),
    "bad-empty": b"",
    "bad-script": b"#!/bin/sh\nexit 0\n",
    "bad-header": elf(cut=40),
    "bad-cut": elf(cut=-8),
    "bad-machine": elf(machine=183),
    "bad-executable": elf(kind=2),
    "bad-interpreter": elf(interpreter=True),
    "bad-abi": elf(FULL.replace(struct.pack("<4I", 1, 0, 0, 1), struct.pack("<4I", 2, 0, 0, 1))),
    "bad-abort": elf(FULL.replace(struct.pack("<4I", 1, 0, 0, 1), struct.pack("<4I", 1, 0, 0, 0))),
    "bad-short-note": elf(FULL[:20]),
    "bad-magic": elf(b"gauntlet" + FULL[8:]),
}

MANIFESTS = {
    "bad-empty": "",
    "bad-nothing": "{}",
    "bad-later": '{"format": 2}',
    "bad-format": '{"format": 18446744073709551616}',
    "bad-list": "[1, 2",
    "bad-nested": "[" * 300,
    "bad-not-utf8": b'{"gauntlet": "\xff"}',
    "bad-types": '{"format": 1, "gauntlet": 3, "step": -1, "model": null, "files": []}',
}

if __name__ == "__main__":
    corpora = {
        "config": CONFIGS,
        "elf": ELFS,
        "jsonl": LINES,
        "manifest": MANIFESTS,
        "request": REQUESTS,
        "shard": SHARDS,
        "tokenizer": TOKENIZERS,
        "trace": TRACES,
        "vector": VECTORS,
    }
    for target, inputs in corpora.items():
        for name, content in inputs.items():
            write(target, name, content)
