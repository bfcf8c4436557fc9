"""The fixtures in `quantised/`: checkpoints as MLX, GPTQ, AWQ and FP8 store them, small ones of each.

    python quantised.py NAME...   makes these, or `all`

Matrices are 128 or 256 wide, so that every size of a group fits. Where a tool that writes a format can run here, it
does (MLX); the others' packings are in `packing.py`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import checkpoint
import families
import goldens
import mlx_models as mlx

HERE = Path(__file__).parent
FOLDER = HERE / "quantised"
PROMPTS = {"short": 10, "window": 40}

# Hidden 128 and feed-forward 256, two layers.
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "max_window_layers": 2}
QWEN2 = families.FAMILIES["qwen2"]
QWEN3 = families.FAMILIES["qwen3"]
GEMMA3 = families.FAMILIES["gemma3"]


def derived(family, config, **changes):
    """A family like another, with another configuration."""
    return families.Family(**{**family.__dict__, "config": config, "prompts": PROMPTS, "mutations": {}, **changes})


# --- MLX ---

MLX = {
    # Biases beside quantised matrices; a tied head; almost every width; stacks whose parts differ.
    "mlx": (
        derived(QWEN2, {**QWEN2.config, **SIZES}), "float16", {"group_size": 64, "bits": 4}, {
            "model.embed_tokens": {"group_size": 64, "bits": 6},
            "model.layers.0.self_attn.v_proj": {"group_size": 32, "bits": 8},
            "model.layers.0.mlp.down_proj": {"group_size": 128, "bits": 5},
            "model.layers.1.self_attn.q_proj": {"group_size": 32, "bits": 3},
            "model.layers.1.self_attn.o_proj": False,
            "model.layers.1.mlp.gate_proj": {"group_size": 32, "bits": 8},
            "model.layers.1.mlp.up_proj": False,
        }),
    # Names within a model of several media; one matrix is too narrow for its groups, and stays as it is.
    "mlx-nested": (
        derived(GEMMA3, {
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "vocab_size": families.VOCAB,
            "eos_token_id": [1, 5], "bos_token_id": 2, "torch_dtype": "bfloat16",
            "text_config": {**GEMMA3.config, "intermediate_size": 96, "num_hidden_layers": 6}}),
        "bfloat16", {"group_size": 64, "bits": 4}, {
            "language_model.model.layers.1.mlp.gate_proj": {"group_size": 32, "bits": 5},
        }),
}


def make_mlx(name, folder):
    family, dtype, default, overrides = MLX[name]
    model, config = mlx.quantise(mlx.build(name, family, dtype), family.config, default, overrides)
    mlx.save(folder, model, config)
    checkpoint.write_texts(folder, family)
    model = mlx.load(folder)
    write_golden(folder, name, mlx.REFERENCE, lambda *entry: mlx.prompt(model, *entry))


def write_golden(folder, name, reference, prompt):
    """`golden.json` with prompts alone: the texts are those of the families."""
    tokenizer = checkpoint.load_tokenizer(folder)
    prompts = []
    for key, count in PROMPTS.items():
        prompts.append(prompt(tokenizer, key, *goldens.prompt_ids(key, count, tokenizer, name)))
        spread = float(np.std(prompts[-1]["logits"]))
        print(f"  {key}: {len(prompts[-1]['tokens'])} tokens, logits' deviation {spread:.2f}")
        assert 1.4 < spread < 6, f"{name}: logits spread by {spread}"
    goldens.write(folder / "golden.json", {
        "reference": reference, "prompts": prompts, "encode": [], "decode": [], "chats": []})


# --- MLX's widths and groups, all of them ---

GRID = derived(QWEN3, {
    **QWEN3.config, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 64, "tie_word_embeddings": True})
GRID_PROMPTS = [[3, 14, 15, 9, 26, 5, 35], [int(t) for t in np.random.default_rng(7).integers(0, 64, 33)]]
GRID_DTYPES = ["bfloat16", "float16", "float32"]  # of scales and biases
# A matrix whose first row is kept as MLX dequantises it.
GRID_ROW = "model.layers.0.self_attn.q_proj"


def grid_forms():
    """File, type and parameters of each."""
    for i, bits in enumerate((2, 3, 4, 5, 6, 8)):
        for j, group in enumerate((32, 64, 128)):
            yield f"affine-{bits}-{group}", GRID_DTYPES[(i + j) % 3], {"bits": bits, "group_size": group, "mode": "affine"}
    yield "mxfp4", "bfloat16", {"bits": 4, "group_size": 32, "mode": "mxfp4"}
    yield "nvfp4", "bfloat16", {"bits": 4, "group_size": 16, "mode": "nvfp4"}
    yield "mxfp8", "bfloat16", {"bits": 8, "group_size": 32, "mode": "mxfp8"}


def make_grid(_, folder):
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(folder / "config.json", GRID.config)
    mlx.save_weights(folder / "dense.safetensors", mlx.build("grid", GRID, "bfloat16"))
    files = {}
    for file, dtype, form in grid_forms():
        model, _ = mlx.quantise(mlx.build("grid", GRID, dtype), GRID.config, form)
        mlx.save_weights(folder / f"{file}.safetensors", model)
        row = mlx.row(model, GRID_ROW)
        if form["mode"] == "affine":
            model.set_dtype(mlx.DTYPES["float32"])
        else:
            model = mlx.dequantised(model)
        logits = [mlx.last_logits(model, tokens) for tokens in GRID_PROMPTS]
        print(f"  {file}: logits' deviation", *(f"{np.std(one):.2f}" for one in logits))
        files[file] = form | {"row": row, "logits": [goldens.rounded(one.tolist()) for one in logits]}
    goldens.write(folder / "golden.json", {
        "reference": mlx.REFERENCE, "tokens": GRID_PROMPTS, "module": GRID_ROW, "files": files})


MAKERS = {name: make_mlx for name in MLX} | {"grid": make_grid}


def make(name, folder):
    """Makes the fixture `name` in `folder`."""
    print(f"quantised/{name}", flush=True)
    MAKERS[name](name, folder)


def main(arguments):
    torch.set_num_threads(2)
    names = list(MAKERS) if arguments == ["all"] else arguments
    for name in names:
        make(name, FOLDER / name)
    return 0 if names else print(__doc__) or 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
