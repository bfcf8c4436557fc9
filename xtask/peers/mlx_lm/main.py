"""mlx_lm as a candidate of `cargo xtask bench`, for Apple silicon.

The arguments are a folder of safetensors, a folder to keep things in, which is not used, and a form: `stored`, or `4bit` or
`8bit`, to which weights are quantised while loading, in groups of 64. The lines on stdin and stdout are those of the peer
`candle`; every request begins with an empty cache, and no token ends a text.
"""

import importlib.metadata
import json
import os
import sys
import time

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache

GROUP = 64
BITS = {"stored": None, "4bit": 4, "8bit": 8}


def main():
    # What libraries print is no line of the protocol.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder, _, form = sys.argv[1:4]
    if form not in BITS:
        forms = ", ".join(f"mlx_lm:{form}" for form in BITS)
        print(json.dumps({"error": f"no form `{form}`; there are {forms}"}), file=out, flush=True)
        return
    try:
        model, loaded = prepare(folder, form)
    except Exception as error:  # The bench tells which, and ends.
        print(json.dumps({"error": str(error)}), file=out, flush=True)
        return
    print(json.dumps(loaded), file=out, flush=True)
    for line in sys.stdin:
        try:
            reply = answer(model, json.loads(line))
        except Exception as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), file=out, flush=True)


def prepare(folder, form):
    """The model, and what the bench is told of it."""
    model, _, config = load(folder, return_config=True)
    stored = config.get("quantization")
    if BITS[form]:
        if stored:
            raise ValueError("the weights are quantised already: compare with mlx_lm:stored")
        nn.quantize(model, group_size=GROUP, bits=BITS[form])
        mx.eval(model.parameters())
    bits, group = (stored["bits"], stored["group_size"]) if stored else (BITS[form], GROUP)
    numbers = [value for _, value in tree_flatten(model.parameters())]
    dtype = str(next(v.dtype for v in numbers if mx.issubdtype(v.dtype, mx.floating))).removeprefix("mlx.core.")
    return model, {
        "engine": "mlx_lm " + importlib.metadata.version("mlx-lm") + ", mlx " + importlib.metadata.version("mlx"),
        "weights": f"{bits}bit" if bits else dtype.replace("bfloat", "bf").replace("float", "f"),
        "note": (f"groups of {group}; " if bits else "") + f"activations {dtype}; memory is that of mlx, on {mx.default_device()}",
        "weight_bytes": sum(value.nbytes for value in numbers),
        "cache_bytes_per_token": cache_bytes(model),
    }


def cache_bytes(model):
    """Bytes of keys and values of a token."""
    cache = make_prompt_cache(model)
    mx.eval(model(mx.zeros((1, 8), dtype=mx.int32), cache=cache))
    # [batch, heads, tokens, head_dim], with room for more tokens or without.
    return sum(part.nbytes // part.shape[2] for layer in cache for part in layer.state[:2])


def answer(model, request):
    """The seconds of one request: until the first token, and of the rest."""
    wanted = request["generate"] + 1
    mx.reset_peak_memory()
    start = time.perf_counter()
    first = None
    count = 0
    for _ in generate_step(mx.array(request["prompt"]), model, max_tokens=wanted):
        count += 1
        first = first or time.perf_counter()
    end = time.perf_counter()
    if count != wanted:
        raise RuntimeError(f"{count} tokens instead of {wanted}")
    return {"prefill_seconds": first - start, "decode_seconds": end - first, "peak_memory": mx.get_peak_memory()}


if __name__ == "__main__":
    main()
