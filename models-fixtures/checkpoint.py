"""Writes a family fixture as a published checkpoint: config, tokenizer, template, weights; and loads it back."""

import json
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file  # noqa: F401
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401

import families
from families import FAMILIES

HERE = Path(__file__).parent
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def write_json(path, value):
    """A JSON file as the Hub has it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def build(cfg, folder):
    """The reference's model for a `config.json`, in f32, with attention spelled out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", cfg)
    config = AutoConfig.from_pretrained(folder)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


def representable(value):
    """Rounded so that f32, f16 and bf16 all hold it exactly."""
    value = value.bfloat16().float()
    return torch.where(value.abs() < 2.0**-16, torch.zeros_like(value), value)


def random_weight(key, shape, family, tied, generator):
    """A random weight by its name, such that every part matters and the logits spread."""
    noise = torch.randn(shape, generator=generator)
    width = shape[-1]
    if len(shape) == 1 and "norm" in key:
        scale = family.sharp if key.endswith(("q_norm.weight", "k_norm.weight")) else 1.0
        if tied and key.endswith("model.norm.weight"):
            scale = 5.0 if family.gemma else 2.0  # makes up for the small embedding
        value = scale * (0.3 * noise + 1.0) - (1.0 if family.gemma else 0.0)
    elif len(shape) == 1:
        value = 0.5 * noise
    elif "embed_tokens" in key:
        # A larger tied one only repeats the last token; Gemma multiplies it by 8, the root of the width.
        value = (1.0 if not tied else 0.08 if family.gemma else 0.2) * noise
    elif "lm_head" in key:
        value = 2.5 / width**0.5 * noise
    elif any(part in key for part in ("q_proj", "k_proj", "qkv_proj")):
        value = 1.1 * family.sharp / width**0.5 * noise
    else:
        value = 1.0 / width**0.5 * noise
    if key.endswith(("embed_tokens.weight", "lm_head.weight")):
        value[families.VOCAB:] *= 0.01  # rows of padding, never the greatest
    return representable(value)


def generator_for(name, family):
    """Random numbers of a fixture's own."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()) + family.salt)


def tensors_for(model, name, family):
    """Random weights of a model of the reference."""
    generator = generator_for(name, family)
    tied = model.config.get_text_config().tie_word_embeddings
    return {
        key: random_weight(key, value.shape, family, tied, generator)
        for key, value in model.state_dict().items() if not (tied and key == "lm_head.weight")
    }


def published_name(key):
    """The name of a tensor in the files; Gemma 3's nested form was published under other names than it has in memory."""
    if key.startswith("model.vision_tower."):
        key = key.replace("model.vision_tower.", "vision_tower.")
        return key if ".vision_model." in key else key.replace("vision_tower.", "vision_tower.vision_model.")
    if key.startswith("model.multi_modal_projector."):
        return key.removeprefix("model.")
    if key.startswith("model.language_model."):
        return key.replace("model.language_model.", "language_model.model.")
    return key


def save(path, tensors):
    """A safetensors file, in order and readable by everyone."""
    save_file(dict(sorted(tensors.items())), path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_weights(folder, tensors, family):
    """`model.safetensors`, or shards and their index."""
    stored = {published_name(key): value.to(DTYPES[family.dtype]).contiguous() for key, value in tensors.items()}
    names = sorted(stored)
    if family.shards == 1:
        save(folder / "model.safetensors", stored)
        return
    middle = len(names) // family.shards + 1
    index = {"metadata": {"total_size": sum(v.numel() * v.element_size() for v in stored.values())}, "weight_map": {}}
    for shard in range(family.shards):
        file = f"model-{shard + 1:05}-of-{family.shards:05}.safetensors"
        part = names[shard * middle : (shard + 1) * middle]
        save(folder / file, {key: stored[key] for key in part})
        index["weight_map"] |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", index)


def write_tokenizer(folder, tokenizer, extra, eos, template, place):
    """`tokenizer.json`, `tokenizer_config.json` and the template where the fixture has it."""
    tokenizer.save(str(folder / "tokenizer.json"))
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    config = {"added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added}}
    config |= extra | {"clean_up_tokenization_spaces": False, "eos_token": eos, "model_max_length": 8192}
    sources = HERE / "templates"
    if place == "chat_template.jinja":
        (folder / place).write_text((sources / template).read_text(encoding="utf-8"), encoding="utf-8")
    elif isinstance(template, dict):
        config["chat_template"] = [
            {"name": name, "template": (sources / file).read_text(encoding="utf-8")} for name, file in template.items()
        ]
    else:
        config["chat_template"] = (sources / template).read_text(encoding="utf-8")
    write_json(folder / "tokenizer_config.json", dict(sorted(config.items())))


def load_tokenizer(folder):
    """The reference's tokenizer with exactly the pipeline of `tokenizer.json`."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if (folder / "chat_template.jinja").exists():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    named = {key: config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(key)}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), chat_template=template, clean_up_tokenization_spaces=False,
        **named)


def wrap(tokenizer):
    """The reference's tokenizer around one of the `tokenizers` package."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def write_texts(folder, family):
    """Everything of the checkpoint that is neither weights nor `config.json`."""
    write_json(folder / "generation_config.json", family.generation)
    make, extra = families.TOKENIZERS[family.tokenizer]
    write_tokenizer(folder, make(), extra, family.eos, family.template, family.place)


def write(name, folder):
    """The checkpoint without its goldens; returns the reference's model and its tensors."""
    family = FAMILIES[name]
    model = build(family.config, folder)
    tensors = tensors_for(model, name, family)
    write_weights(folder, tensors, family)
    write_texts(folder, family)
    fill(model, tensors)
    return model, tensors


def fill(model, tensors):
    """Puts tensors into a model; a tied head follows its embedding."""
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [key for key in missing if key != "lm_head.weight"]
    assert not missing and not unexpected, (missing, unexpected)
    model.tie_weights()
