"""Wrong models: each changes one thing, and the goldens must notice.

A mutation is a function of (config, tensors) that gives changed copies of both and, for what neither
can say, a function that alters the built model (else None).
"""

import copy

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def config(**changes):
    """Other values in `config.json`."""
    def mutate(cfg, tensors):
        return cfg | changes, tensors, None
    return mutate


def text(**changes):
    """Other values in the text part of `config.json`, nested or not."""
    def mutate(cfg, tensors):
        if "text_config" in cfg:
            return cfg | {"text_config": cfg["text_config"] | changes}, tensors, None
        return cfg | changes, tensors, None
    return mutate


def nested(key, **changes):
    """Other values in one object of `config.json`."""
    def mutate(cfg, tensors):
        return cfg | {key: cfg[key] | changes}, tensors, None
    return mutate


def _heads(cfg):
    cfg = cfg.get("text_config", cfg)
    size = cfg.get("head_dim", cfg["hidden_size"] // cfg["num_attention_heads"])
    return cfg["num_attention_heads"], cfg["num_key_value_heads"], size


def _edit(tensors, match, change):
    return {name: change(value) if match(name) else value for name, value in tensors.items()}


def interleaved(cfg, tensors):
    """Adjacent pairs rotated instead of halves: the same as permuting the rows of q and k."""
    _, _, size = _heads(cfg)
    order = torch.arange(size).view(size // 2, 2).T.flatten()

    def permute(value):
        return value.view(-1, size, *value.shape[1:])[:, order].reshape(value.shape)

    parts = (".q_proj.weight", ".k_proj.weight", ".q_proj.bias", ".k_proj.bias", ".q_norm.weight", ".k_norm.weight")
    return cfg, _edit(tensors, lambda name: name.endswith(parts) and "vision" not in name, permute), None


def tiled(cfg, tensors):
    """Query head i reads key head i mod kv instead of i div group: swaps q heads, and o's columns with them."""
    heads, kv, size = _heads(cfg)
    order = torch.arange(heads).view(kv, heads // kv).T.flatten()

    def rows(value):
        queries = value[: heads * size].view(heads, size, -1)[order].reshape(heads * size, -1)
        return torch.cat([queries, value[heads * size:].view(-1, queries.shape[1])]).view(value.shape)

    def columns(value):
        return value.view(-1, heads, size)[:, order].reshape(value.shape)

    ours = "vision"
    tensors = _edit(tensors, lambda n: n.endswith(("q_proj.weight", "q_proj.bias", "qkv_proj.weight")) and ours not in n, rows)
    return cfg, _edit(tensors, lambda n: n.endswith("o_proj.weight") and ours not in n, columns), None


def norms(one):
    """All norm weights at their neutral value."""
    def mutate(cfg, tensors):
        return cfg, _edit(tensors, lambda n: n.endswith("norm.weight") and "vision" not in n, lambda v: torch.full_like(v, one)), None
    return mutate


def qk_norms(one):
    """The q and k norms' weights at their neutral value."""
    def mutate(cfg, tensors):
        return cfg, _edit(tensors, lambda n: n.endswith(("q_norm.weight", "k_norm.weight")), lambda v: torch.full_like(v, one)), None
    return mutate


def norm_offset(cfg, tensors):
    """Gemma's norm without the `1 +`."""
    return cfg, _edit(tensors, lambda n: n.endswith("norm.weight") and "vision" not in n, lambda v: v - 1), None


def zero_biases(cfg, tensors):
    """No biases."""
    return cfg, _edit(tensors, lambda n: n.endswith("_proj.bias"), torch.zeros_like), None


def swapped_gate(cfg, tensors):
    """The halves of `gate_up_proj` the other way round."""
    return cfg, _edit(tensors, lambda n: n.endswith("gate_up_proj.weight"), lambda v: torch.cat(v.chunk(2)[::-1])), None


def embed_scale(cfg, tensors):
    """Gemma's embedding without its factor."""
    def alter(model):
        model.get_input_embeddings().embed_scale.fill_(1.0)
    return cfg, tensors, alter


def full_rotary(cfg, tensors):
    """Every dimension of a head rotated, `partial_rotary_factor` ignored."""
    cfg = copy.deepcopy(cfg)
    cfg["partial_rotary_factor"] = 1.0
    for key in ("short_factor", "long_factor"):
        cfg["rope_scaling"][key] += cfg["rope_scaling"][key][-1:] * 2
    return cfg, tensors, None


def bf16_table(cfg, tensors):
    """The RoPE frequencies rounded to bf16."""
    def alter(model):
        for module in model.modules():
            for name, value in list(module.named_buffers(recurse=False)):
                if "inv_freq" in name:
                    value.copy_(value.bfloat16().float())
            if getattr(module, "rope_type", None) == "longrope":
                longer = module.config.original_max_position_embeddings + 1
                table, _ = ROPE_INIT_FUNCTIONS["longrope"](module.config, "cpu", seq_len=longer)
                module.long_inv_freq = table.bfloat16().float()
    return cfg, tensors, alter


def whole_norm(cfg, tensors):
    """The q and k norms over all heads at once instead of over each."""
    def alter(model):
        for name, module in model.named_modules():
            if name.endswith(("q_norm", "k_norm")):
                eps = getattr(module, "variance_epsilon", 0.0)
                module.forward = lambda x, w=module.weight, eps=eps: (
                    x * torch.rsqrt(x.pow(2).mean((-1, -2), keepdim=True) + eps) * w)
    return cfg, tensors, alter
