"""The fixtures in `quantised/`: checkpoints as MLX, GPTQ, AWQ and FP8 store them, small ones of each.

    python quantised.py NAME...   makes these, or `all`

Matrices are 128 or 256 wide, so that every size of a group fits. Where a tool that writes a format can run here, it
does (MLX); the others' packings are in `packing.py`.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

import checkpoint
import families
import goldens
import mlx_models as mlx
import packing

HERE = Path(__file__).parent
FOLDER = HERE / "quantised"
PROMPTS = {"short": 10, "window": 40}
NOTICED = 5e-2  # what every wrong reading of a format must move logits by

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


# --- GPTQ, AWQ and FP8: our packing, and the reference on the numbers that are meant ---

TIED = {"tie_word_embeddings": True, "vocab_size": families.VOCAB}
ACT_ORDER = torch.Generator().manual_seed(11)


def gptq_config(**changes):
    return {"bits": 4, "group_size": 128, "damp_percent": 0.01, "desc_act": False, "static_groups": False, "sym": True,
            "lm_head": False, "true_sequential": True, "quant_method": "gptq", **changes}


PACKED = {
    # As AutoGPTQ writes it: the first version, which doesn't say so.
    "gptq": (SIZES, gptq_config(), "float16", lambda w: packing.gptq(w)),
    # As GPTQModel writes it, inputs in the order of their activations, zeros anywhere.
    "gptq-act-order": (
        {**SIZES, "num_hidden_layers": 1, "max_window_layers": 1},
        gptq_config(group_size=32, desc_act=True, sym=False, checkpoint_format="gptq_v2", pack_dtype="int32"), "bfloat16",
        lambda w: packing.gptq(w, group=32, symmetric=False, version=2, generator=ACT_ORDER)),
    "awq": (
        {**SIZES, "num_hidden_layers": 1, "max_window_layers": 1},
        {"backend": "autoawq", "bits": 4, "do_fuse": False, "exllama_config": None, "fuse_max_seq_len": None,
         "group_size": 64, "modules_to_fuse": None, "modules_to_not_convert": ["o_proj"], "quant_method": "awq",
         "version": "gemm", "zero_point": True}, "float16", lambda w: packing.awq(w, group=64)),
    "fp8": (
        {**SIZES, "num_hidden_layers": 1, "max_window_layers": 1, "num_attention_heads": 8, "intermediate_size": 384},
        {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
         "modules_to_not_convert": ["lm_head"]}, "bfloat16", lambda w: packing.fp8(w)),
}


def is_quantised(key, settings):
    """Matrices of the layers, but those that are left out."""
    left_out = settings.get("modules_to_not_convert") or []
    return key.endswith("_proj.weight") and not any(name in key for name in left_out)


def uneven(key, value):
    """Blocks of 128 with magnitudes of their own, so that it matters which scale a block has."""
    rows, cols = (torch.arange(size) // 128 for size in value.shape)
    return checkpoint.representable(value * 1.5 ** (((rows[:, None] + cols) * 2 + len(key)) % 3 - 1))


def make_packed(name, folder):
    sizes, settings, dtype, pack = PACKED[name]
    family = derived(QWEN3, {**QWEN3.config, **sizes, **TIED, "torch_dtype": dtype}, dtype=dtype)
    model = checkpoint.build(family.config, folder)
    tensors = checkpoint.tensors_for(model, name, family)
    ACT_ORDER.manual_seed(11)
    stored, meant, wrong = {}, {}, {}
    for key, value in tensors.items():
        meant[key] = value
        if not is_quantised(key, settings):
            stored[key] = value.to(checkpoint.DTYPES[dtype]).contiguous()
            continue
        value = uneven(key, value) if name == "fp8" else value
        parts, meant[key], mistakes = pack(value)
        stored |= {key.removesuffix("weight") + part: tensor for part, tensor in parts.items()}
        for what, mistaken in mistakes.items():
            wrong.setdefault(what, {})[key] = mistaken
    checkpoint.save(folder / "model.safetensors", stored)
    checkpoint.write_json(folder / "config.json", {**family.config, "quantization_config": settings})
    checkpoint.write_texts(folder, family)
    checkpoint.fill(model, meant)
    write_golden(folder, name, goldens.reference(), lambda tokenizer, *entry: goldens.prompt(model, tokenizer, *entry))
    check_mistakes(name, folder, model, meant, wrong)
    check_others(name, folder, meant)


def check_mistakes(name, folder, model, meant, wrong):
    """Every wrong reading must be noticed."""
    entry = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["prompts"][1]
    right = torch.tensor(entry["logits"])
    for what, mistaken in wrong.items():
        checkpoint.fill(model, meant | mistaken)
        moved = float((goldens.last_logits(model, entry["tokens"]) - right).norm() / right.norm())
        print(f"  {what}: {moved:.3f}")
        if moved <= NOTICED:
            raise SystemExit(f"{name}: nothing notices `{what}`")


def check_others(name, folder, meant):
    """Who reads the format by code of its own must get the same: `mlx_lm` AWQ, `transformers` FP8."""
    if name == "awq":
        entry = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["prompts"][1]
        right = torch.tensor(entry["logits"])
        logits = torch.tensor(mlx.last_logits(mlx.load(folder), entry["tokens"]))
        moved = float((logits - right).norm() / right.norm())
        print(f"  mlx_lm: {moved:.1e}")
        assert moved < 2e-3, f"{name}: mlx_lm gives logits {moved} off"  # it rounds biases to f16
    if name == "fp8":
        reader = Fp8Dequantize(None)
        stored = checkpoint.load_file(folder / "model.safetensors")
        for key in [key for key in stored if key.endswith("_scale_inv")]:
            key = key.removesuffix("_scale_inv")
            wide = reader._dequantize_one(stored[key], stored[f"{key}_scale_inv"], torch.bfloat16)
            assert torch.equal(wide.float(), meant[key]), f"{name}: transformers reads {key} differently"


# --- Single matrices, to the last bit ---

def packings():
    """By name: `quantization_config`, and the tensors with what is meant."""
    generator = torch.Generator().manual_seed(23)
    noise = torch.randn(64, 512, generator=generator)
    for bits in (2, 3, 4, 8):
        order = generator if bits in (3, 4) else None
        yield (f"gptq-{bits}", gptq_config(bits=bits, group_size=32, desc_act=order is not None, sym=False),
               packing.gptq(noise[:32, :128], bits, 32, False, 1, order))
    yield "gptq-rows", gptq_config(bits=8, group_size=-1), packing.gptq(noise[:32, :384], 8, -1, True, 1)
    yield ("gptq-wide", gptq_config(group_size=256, checkpoint_format="gptq_v2", sym=False),
           packing.gptq(noise[:32], 4, 256, False, 2))
    yield "awq-32", {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "GEMM"}, packing.awq(noise[:56, :160], 32)
    yield "awq-128", {"quant_method": "awq", "bits": 4, "group_size": 128}, packing.awq(noise[:, :256], 128)
    block = {"quant_method": "fp8", "weight_block_size": [24, 40]}
    yield "fp8-blocks", block, packing.fp8(noise[:, :128], (24, 40), dtype=torch.bfloat16)
    channels = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}}
    yield "fp8-channels", channels, packing.fp8(noise[:32, :64], (1, 64), "weight_scale", torch.bfloat16)
    yield "fp8-whole", channels, packing.fp8(noise[:32, :64], (32, 64), "weight_scale")


def make_packings(_, folder):
    folder.mkdir(parents=True, exist_ok=True)
    settings = {}
    for name, config, (tensors, meant, _) in packings():
        stored = {f"module.{part}": tensor.contiguous() for part, tensor in tensors.items()}
        if name == "fp8-whole":
            stored["module.weight_scale"] = stored["module.weight_scale"].reshape(1)
        checkpoint.save(folder / f"{name}.safetensors", stored | {"meant": meant.contiguous()})
        settings[name] = config
    goldens.write(folder / "golden.json", settings)


MAKERS = {name: make_mlx for name in MLX} | {name: make_packed for name in PACKED} | {
    "grid": make_grid, "packings": make_packings}


def make(name, folder):
    """Makes the fixture `name` in `folder`."""
    print(f"quantised/{name}", flush=True)
    MAKERS[name](name, folder)


def compare(name, made, compare_goldens):
    """Lines that say where the fixture `name` and one made again differ."""
    kept, faults = FOLDER / name, []
    files = {path.name for path in kept.iterdir()} | {path.name for path in made.iterdir()}
    for file in sorted(files):
        if not (kept / file).exists() or not (made / file).exists():
            faults.append(f"quantised/{name}: {file} is in only one of the two")
        elif file == "golden.json":
            golden = [json.loads((folder / file).read_text(encoding="utf-8")) for folder in (kept, made)]
            faults += compare_grid(*golden) if name == "grid" else compare_goldens(f"quantised/{name}", *golden) if \
                "prompts" in golden[0] else [] if golden[0] == golden[1] else [f"quantised/{name}: {file} differs"]
        elif not same(kept / file, made / file):
            faults.append(f"quantised/{name}: {file} differs")
    return faults


def same(kept, made):
    """Whether two files say the same: bytes, but for the order of tensors, which is MLX's."""
    if kept.suffix != ".safetensors":
        return kept.read_bytes() == made.read_bytes()
    kept, made = checkpoint.load_file(kept), checkpoint.load_file(made)
    return kept.keys() == made.keys() and all(
        kept[key].dtype == made[key].dtype and kept[key].shape == made[key].shape
        and torch.equal(kept[key].contiguous().view(torch.uint8), made[key].contiguous().view(torch.uint8))
        for key in kept)


def compare_grid(kept, made):
    faults = [] if kept["files"].keys() == made["files"].keys() else ["quantised/grid: other files"]
    for file in kept["files"].keys() & made["files"].keys():
        for old, new in zip(kept["files"][file]["logits"], made["files"][file]["logits"]):
            old, new = torch.tensor(old), torch.tensor(new)
            if (new - old).norm() > 1e-4 * old.norm():
                faults.append(f"quantised/grid: logits of {file} differ")
    return faults


def check(compare_goldens):
    """Makes all again elsewhere; gives the lines that say what differs."""
    faults = []
    with tempfile.TemporaryDirectory() as root:
        for name in MAKERS:
            made = Path(root) / name
            make(name, made)
            faults += compare(name, made, compare_goldens)
    return faults


def main(arguments):
    torch.set_num_threads(2)
    names = list(MAKERS) if arguments == ["all"] else arguments
    for name in names:
        make(name, FOLDER / name)
    return 0 if names else print(__doc__) or 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
