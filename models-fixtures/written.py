"""Whether `mlx_lm` loads what `inference quantise` writes, and computes the same.

    python written.py [PROGRAM]    # default: cargo run --package inference-cli --

Every family is quantised and both continue a prompt; the log-probabilities of the likeliest tokens must agree.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np

import mlx_models

HOME = Path(__file__).resolve().parent
PROGRAM = sys.argv[1:] or ["cargo", "run", "--quiet", "--package", "inference-cli", "--"]
# Those that `mlx_lm` computes as the reference does. It takes the wrong factors of Phi 3's LongRoPE, and no notice of the
# windows of Mistral and Gemma 2: prompt and steps together are shorter than those.
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "storyteller"]
PROMPT = "Once"
STEPS = 4
# Of log-probabilities; both compute in f32, in another order.
TOLERANCE = 2e-3


def program(*arguments):
    return subprocess.run([*PROGRAM, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def ours(folder):
    """The prompt's ids' continuation: for each token, its id and the likeliest ones with their log-probabilities."""
    lines = program("generate", folder, PROMPT, "--json", "--logprobs", 10, "--max-tokens", STEPS,
                    "--exact-activations", "--cache-dtype", "f32").splitlines()
    return [json.loads(line) for line in lines[:-1]]


def difference(folder):
    """The largest difference of a log-probability from `mlx_lm`'s."""
    from tokenizers import Tokenizer
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROMPT).ids
    model = mlx_models.load(folder)
    found = ours(folder)
    if not found:
        raise SystemExit(f"{folder.name}: nothing was generated")
    largest = 0.0
    for token in found:
        logits = mlx_models.last_logits(model, ids).astype(np.float64)
        theirs = logits - logits.max()
        theirs -= math.log(np.exp(theirs).sum())
        for one in token["top_logprobs"]:
            largest = max(largest, abs(one["logprob"] - theirs[one["id"]]))
        ids = [*ids, token["id"]]
    return largest


def main():
    faults = 0
    for name in FAMILIES:
        for bits in [8, 4, 3]:
            with tempfile.TemporaryDirectory() as work:
                folder = Path(work) / f"{name}-{bits}"
                program("quantise", HOME / name, folder, "--bits", bits, "--group", 32)
                largest = difference(folder)
            wrong = not largest <= TOLERANCE
            faults += wrong
            print(f"{name:12} {bits} bits: log-probabilities within {largest:.1e}{'  WRONG' if wrong else ''}")
    if faults:
        raise SystemExit(f"mlx_lm makes something else of {faults} checkpoints that we wrote")


main()
