"""MLX's side of the quantised fixtures: models of `mlx_lm`, quantised and saved by it, and what it makes of them.

Everything is computed in f32 on the CPU, whatever weights and scales are stored in.
"""

import contextlib
import copy
import io
from importlib.metadata import version

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm import utils

import checkpoint
import goldens

mx.set_default_device(mx.cpu)
DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
REFERENCE = {"mlx": version("mlx"), "mlx_lm": version("mlx-lm")}


def build(name, family, dtype):
    """A model of `mlx_lm` with random weights of this type."""
    kind, arguments = utils._get_classes(family.config)
    model = kind(arguments.from_dict(copy.deepcopy(family.config)))
    getattr(model, "language_model", model).sanitize({})  # takes a tied head away
    names = dict(tree_flatten(model.parameters()))
    tied = not any("lm_head" in key for key in names)
    generator = checkpoint.generator_for(name, family)
    weights = [
        (key, mx.array(checkpoint.random_weight(key, tuple(names[key].shape), family, tied, generator).numpy()))
        for key in sorted(names)
    ]
    model.update(tree_unflatten(weights))
    model.set_dtype(DTYPES[dtype])
    return model


def quantise(model, config, default, overrides=None):
    """The model quantised by `mlx_lm`, and its configuration. `overrides`: by module, other parameters or `False`."""
    overrides = overrides or {}
    with contextlib.redirect_stdout(io.StringIO()):
        model, config = utils.quantize_model(
            model, config, default["group_size"], default["bits"], default.get("mode", "affine"),
            quant_predicate=lambda path, _: copy.copy(overrides.get(path, True)))
    # Other tools say so as well.
    config["quantization"] |= {path: False for path, how in overrides.items() if how is False}
    return model, config


def save_weights(path, model):
    """In a file as `mlx_lm.convert` writes it."""
    mx.save_safetensors(str(path), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"})
    path.chmod(0o644)


def save(folder, model, config):
    """A checkpoint as `mlx_lm.convert` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "model.safetensors", model)
    utils.save_config(copy.deepcopy(config), folder / "config.json")


def load(folder):
    """What `mlx_lm` loads from a folder, in f32."""
    model, _ = utils.load_model(folder)
    model.set_dtype(mx.float32)
    return model


def dequantised(model):
    """The same model with `mx.dequantize` of its matrices, in f32."""
    model = utils.dequantize_model(model)
    model.set_dtype(mx.float32)
    return model


def last_logits(model, ids):
    logits = model(mx.array([ids]))[0, -1]
    assert logits.dtype == mx.float32, logits.dtype
    return np.array(logits)


def prompt(model, tokenizer, name, text, ids):
    """One entry of `prompts`, as `goldens.prompt` makes it with the reference."""
    first = logits = last_logits(model, ids)
    tokens, margins = [], []
    for _ in range(goldens.STEPS):
        second, best = np.sort(logits)[-2:]
        tokens.append(int(logits.argmax()))
        margins.append(float(best - second))
        logits = last_logits(model, ids + tokens)
    return {
        "name": name, "text": text, "tokens": ids, "logits": goldens.rounded(first.tolist()), "greedy": tokens,
        "greedy_text": goldens.decode(tokenizer, tokens), "margins": goldens.rounded(margins),
    }


def row(model, path):
    """The first row of a quantised matrix, as `mx.dequantize` gives it in f32."""
    module = dict(model.named_modules())[path]
    floats = [value.astype(mx.float32) if mx.issubdtype(value.dtype, mx.floating) else value
              for value in (module.scales, module.biases) if value is not None]
    wide = mx.dequantize(module.weight, *floats, group_size=module.group_size, bits=module.bits, mode=module.mode,
                         dtype=mx.float32)
    return [float(value) for value in np.array(wide[0])]
