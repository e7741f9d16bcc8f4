"""The peers' end of the bench: one side of a subject, driven round by round over standard input and output."""

import json
import sys
import time

import safetensors.torch
import torch


class Side:
    """What the command line names: `SUBJECT SIDE FOLDER THREADS`."""

    def __init__(self):
        self.subject, self.name, self.folder, threads = sys.argv[1:]
        torch.set_num_threads(int(threads))

    def inputs(self, name="inputs"):
        """Tensors that the first side has written, by name."""
        return safetensors.torch.load_file(f"{self.folder}/{name}.safetensors")

    def serve(self, round, check, **versions):
        """Says that it is warm, and answers each line with the quantities of a round."""
        say({"check": check, "versions": {"torch": torch.__version__, **versions}})
        for _ in sys.stdin:
            say(round())


def say(message):
    print(json.dumps(message), flush=True)


def seconds(run, repeats=1):
    """The time of a call, on average over `repeats` after one that is not measured."""
    run()
    started = time.perf_counter()
    for _ in range(repeats):
        result = run()
    elapsed = (time.perf_counter() - started) / repeats
    del result
    return elapsed


def split(tensors):
    """Parameters by name, and the tokens."""
    tokens = tensors.pop("tokens")
    return tensors, tokens
