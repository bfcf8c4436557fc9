"""The model families: each fixture's `config.json`, as published checkpoints of the family have it.

`FAMILIES` is the table; a fixture's weights, tokenizer files and goldens follow from its entry.
"""

from dataclasses import dataclass, field

import mutations as m
import tokenizers_

LLAMA_SPECIALS = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>",
]
QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_PLAIN = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
GEMMA_SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"]
MISTRAL_SPECIALS = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
PHI_SPECIALS = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
VOCAB = 512


@dataclass
class Family:
    """One fixture: what is published, and how it is tested."""

    config: dict  # config.json
    tokenizer: str  # a key of TOKENIZERS
    template: str | dict  # a file of templates/, or named ones
    place: str = "tokenizer_config.json"  # where the template lies; else "chat_template.jinja"
    dtype: str = "bfloat16"  # of the stored weights
    shards: int = 1
    generation: dict = field(default_factory=dict)  # generation_config.json
    prompts: dict = field(default_factory=dict)  # name: tokens
    mutations: dict = field(default_factory=dict)  # name: function of (config, tensors)
    chats: tuple = ("user", "system", "turns", "continue")
    eos: str = ""  # the tokenizer's end token
    gemma: bool = False  # norms mean 1 + w
    salt: int = 0  # another one gives other weights
    sharp: float = 1.0  # how peaked attention is; long prompts need it, else 4,000 random values average out


def llama_tokenizer():
    numbers = ["In 2024 the year had 366 days, in 2023 it had 365; 1000 metres are 100 times 10."] * 300
    return tokenizers_.byte_level(VOCAB, tokenizers_.LLAMA_PATTERN, LLAMA_SPECIALS, bos="<|begin_of_text|>",
                                  lines=tokenizers_.text() + numbers)


def qwen_tokenizer():
    return tokenizers_.byte_level(VOCAB, tokenizers_.QWEN_PATTERN, QWEN_SPECIALS, QWEN_PLAIN, nfc=True)


def gemma_tokenizer():
    return tokenizers_.byte_fallback(VOCAB, GEMMA_SPECIALS, "<bos>", prefix_space=False)


def mistral_tokenizer():
    return tokenizers_.byte_fallback(VOCAB, MISTRAL_SPECIALS, "<s>", prefix_space=True)


def phi_tokenizer():
    return tokenizers_.byte_fallback(VOCAB - len(PHI_SPECIALS), MISTRAL_SPECIALS[:3], None, prefix_space=True, late=PHI_SPECIALS)


# How each is built, and what its tokenizer_config.json says besides the added tokens.
TOKENIZERS = {
    "llama": (llama_tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>"}),
    "qwen": (qwen_tokenizer, {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "pad_token": "<|endoftext|>",
                              "add_bos_token": False, "add_prefix_space": False, "split_special_tokens": False}),
    "gemma": (gemma_tokenizer, {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "pad_token": "<pad>",
                                "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False,
                                "spaces_between_special_tokens": False}),
    "mistral": (mistral_tokenizer, {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "unk_token": "<unk>",
                                    "add_bos_token": True, "add_eos_token": False, "legacy": False,
                                    "spaces_between_special_tokens": False}),
    "phi": (phi_tokenizer, {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "unk_token": "<unk>",
                            "pad_token": "<|endoftext|>", "add_bos_token": False, "add_eos_token": False,
                            "legacy": False}),
}


def _llama(scaling, **changes):
    config = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 505, "eos_token_id": 511, "head_dim": 16, "hidden_act": "silu", "hidden_size": 64,
        "initializer_range": 0.02, "intermediate_size": 160, "max_position_embeddings": 8192, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": scaling, "rope_theta": 500000.0,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.45.0",
        "use_cache": True, "vocab_size": VOCAB,
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value != "absent"}


def _qwen(kind, **changes):
    config = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 505,
        "eos_token_id": 507, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
        "intermediate_size": 160, "max_position_embeddings": 4096, "max_window_layers": 2, "model_type": kind,
        "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 8, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False, "vocab_size": VOCAB,
    }
    config.update(changes)
    return config


GEMMA3_TEXT = {
    "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None, "bos_token_id": 2,
    "eos_token_id": [1, 5], "final_logit_softcapping": None, "head_dim": 16, "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 8192,
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 6, "num_key_value_heads": 2,
    "pad_token_id": 0, "query_pre_attn_scalar": 8, "rms_norm_eps": 1e-06, "sliding_window": 8,
    "use_cache": True, "vocab_size": VOCAB,
}
PHI_SHORT = [1.0, 1.02, 1.05, 1.1, 1.2, 1.35]
PHI_LONG = [1.1, 1.5, 3.0, 8.0, 20.0, 40.0]

SCALED = {"short": 10, "window": 40, "long": 4200}
PLAIN = {"short": 10, "window": 40}
COMMON = {"activation": m.config(hidden_act="gelu"), "interleaved rope": m.interleaved, "tiled heads": m.tiled,
          "norm weights one": m.norms(1.0), "rope theta": m.config(rope_theta=100.0)}
QK_NORM = {"q/k norm weights one": m.qk_norms(1.0), "norm over all heads": m.whole_norm}

FAMILIES = {
    "llama": Family(
        config=_llama({"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                       "original_max_position_embeddings": 512, "rope_type": "llama3"},
                      tie_word_embeddings=True, eos_token_id=[506, 510, 511]),
        tokenizer="llama", template="llama.jinja", shards=2, eos="<|eot_id|>",
        generation={"bos_token_id": 505, "do_sample": True, "eos_token_id": [506, 510, 511], "temperature": 0.6,
                    "top_p": 0.9, "transformers_version": "4.45.0"},
        prompts=SCALED, sharp=1.1, chats=("user", "system", "turns", "continue", "date"),
        mutations=COMMON | {"rope scaling off": m.config(rope_scaling=None), "bf16 rope table": m.bf16_table},
    ),
    "llama-linear": Family(
        config=_llama({"factor": 4.0, "type": "linear"}, max_position_embeddings=16384, torch_dtype="float32",
                      head_dim="absent", rope_theta=10000.0, transformers_version="4.39.0"),
        tokenizer="llama", template={"default": "llama.jinja", "tool_use": "llama_tools.jinja"}, dtype="float32",
        eos="<|eot_id|>", sharp=1.5, generation={"bos_token_id": 505, "eos_token_id": 511, "transformers_version": "4.39.0"},
        prompts=SCALED, chats=("user", "system", "turns", "continue", "tools"),
        mutations=COMMON | {"rope scaling off": m.config(rope_scaling=None), "bf16 rope table": m.bf16_table},
    ),
    "llama-dynamic": Family(
        config=_llama({"factor": 2.0, "rope_type": "dynamic"}, max_position_embeddings=64, rope_theta=10000.0),
        tokenizer="llama", template="llama_generation.jinja", place="chat_template.jinja", eos="<|eot_id|>",
        generation={"bos_token_id": 505, "eos_token_id": 511, "transformers_version": "4.45.0"},
        prompts={"short": 10, "window": 40, "crossing": 55, "past": 100},
        mutations=COMMON | {"rope scaling off": m.config(rope_scaling=None)},
    ),
    "qwen2": Family(
        config=_qwen("qwen2", torch_dtype="float16"), tokenizer="qwen", template="chatml.jinja", dtype="float16",
        eos="<|im_end|>", prompts=PLAIN, salt=3,
        generation={"bos_token_id": 505, "pad_token_id": 505, "do_sample": True, "eos_token_id": [507, 505],
                    "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20,
                    "transformers_version": "4.37.0"},
        mutations=COMMON | {"biases zero": m.zero_biases, "window on": m.config(use_sliding_window=True, max_window_layers=0)},
    ),
    "qwen3": Family(
        config=_qwen("qwen3", tie_word_embeddings=False, head_dim=32, attention_bias=False, sliding_window=None,
                     vocab_size=VOCAB + 8, rope_scaling=None),
        tokenizer="qwen", template="qwen3.jinja", place="chat_template.jinja", eos="<|im_end|>", prompts=PLAIN,
        generation={"bos_token_id": 505, "do_sample": True, "eos_token_id": [507, 505], "pad_token_id": 505,
                    "temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0"},
        chats=("user", "system", "turns", "continue", "tools", "tool result", "thinking", "no thinking", "reasoning"),
        mutations=COMMON | QK_NORM,
    ),
    "qwen3-yarn": Family(
        config={k: v for k, v in _qwen("qwen3", head_dim=16, attention_bias=False, sliding_window=None,
                max_position_embeddings=8192, dtype="bfloat16", transformers_version="5.0.0",
                layer_types=["full_attention"] * 3, pad_token_id=None,
                rope_parameters={"factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 1000000.0,
                                 "rope_type": "yarn"}).items() if k not in ("rope_theta", "torch_dtype")},
        tokenizer="qwen", template="qwen3.jinja", eos="<|im_end|>", prompts=SCALED, sharp=1.15, salt=3,
        generation={"bos_token_id": 505, "eos_token_id": [507, 505], "transformers_version": "5.0.0"},
        chats=("user", "system", "turns", "continue", "tools"),
        mutations={k: v for k, v in (COMMON | QK_NORM).items() if k != "rope theta"} | {
            "rope scaling off": m.config(rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
            "attention factor one": m.nested("rope_parameters", attention_factor=1.0),
            "bf16 rope table": m.bf16_table},
    ),
    "mistral": Family(
        config={
            "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
            "head_dim": 32, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
            "intermediate_size": 160, "max_position_embeddings": 32768, "model_type": "mistral",
            "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0, "sliding_window": 8, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
            "transformers_version": "4.42.0", "use_cache": True, "vocab_size": VOCAB,
        },
        tokenizer="mistral", template="mistral.jinja", eos="</s>", prompts=PLAIN,
        generation={"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.42.0"},
        chats=("user", "system", "turns", "continue", "error"),
        mutations=COMMON | {"window off": m.config(sliding_window=None), "window 7": m.config(sliding_window=7),
                            "window 9": m.config(sliding_window=9)},
    ),
    "gemma2": Family(
        config={
            "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
            "attn_logit_softcapping": 3.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
            "final_logit_softcapping": 8.0, "head_dim": 16, "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 64, "initializer_range": 0.02,
            "intermediate_size": 128, "max_position_embeddings": 8192, "model_type": "gemma2",
            "num_attention_heads": 4, "num_hidden_layers": 4, "num_key_value_heads": 2, "pad_token_id": 0,
            "query_pre_attn_scalar": 8, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 8,
            "torch_dtype": "bfloat16", "transformers_version": "4.42.4", "use_cache": True, "vocab_size": VOCAB,
        },
        tokenizer="gemma", template="gemma2.jinja", eos="<eos>", prompts=PLAIN, gemma=True, salt=8,
        generation={"_from_model_config": True, "bos_token_id": 2, "cache_implementation": "hybrid",
                    "eos_token_id": [1, 5], "pad_token_id": 0, "transformers_version": "4.42.4"},
        chats=("user", "turns", "continue", "error", "system error"),
        mutations={"activation": m.config(hidden_activation="silu"), "interleaved rope": m.interleaved,
                   "tiled heads": m.tiled, "norm weights one": m.norms(0.0), "norm offset dropped": m.norm_offset,
                   "embedding scale one": m.embed_scale, "attention softcap off": m.config(attn_logit_softcapping=None),
                   "final softcap off": m.config(final_logit_softcapping=None),
                   "scale by head_dim": m.config(query_pre_attn_scalar=16), "window off": m.config(sliding_window=4096),
                   "window 7": m.config(sliding_window=7), "window 9": m.config(sliding_window=9),
                   "window on odd layers": m.config(layer_types=["full_attention", "sliding_attention"] * 2),
                   "rope theta": m.config(rope_theta=100.0)},
    ),
}

_GEMMA3_MUTATIONS = {
    "interleaved rope": m.interleaved, "tiled heads": m.tiled, "norm weights one": m.norms(0.0),
    "q/k norm weights one": m.qk_norms(0.0), "norm offset dropped": m.norm_offset, "embedding scale one": m.embed_scale,
    "activation": m.text(hidden_activation="silu"), "scale by head_dim": m.text(query_pre_attn_scalar=16),
    "window off": m.text(sliding_window=4096), "window 7": m.text(sliding_window=7),
    "window 9": m.text(sliding_window=9),
    "global layer first": m.text(layer_types=["full_attention"] + ["sliding_attention"] * 5),
}
FAMILIES |= {
    "gemma3": Family(
        config=GEMMA3_TEXT | {
            "architectures": ["Gemma3ForCausalLM"], "cache_implementation": "hybrid", "rope_local_base_freq": 10000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 1000000.0,
            "sliding_window_pattern": 6, "torch_dtype": "bfloat16", "transformers_version": "4.50.0",
        },
        tokenizer="gemma", template="gemma3.jinja", place="chat_template.jinja", eos="<eos>", prompts=SCALED, gemma=True,
        generation={"bos_token_id": 2, "cache_implementation": "hybrid", "do_sample": True, "eos_token_id": [1, 5],
                    "pad_token_id": 0, "top_k": 64, "top_p": 0.95, "transformers_version": "4.50.0"},
        chats=("user", "system", "turns", "continue", "error", "parts"),
        mutations=_GEMMA3_MUTATIONS | {
            "rope scaling off": m.config(rope_scaling=None),
            "one rope base": m.config(rope_local_base_freq=1000000.0),
            "local base everywhere": m.config(rope_theta=10000.0)},
    ),
    "gemma3-nested": Family(
        config={
            "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 6, "bos_token_id": 2,
            "dtype": "bfloat16", "eoi_token_index": 6, "eos_token_id": [1, 5], "image_token_index": 6,
            "initializer_range": 0.02, "mm_tokens_per_image": 4, "model_type": "gemma3",
            "text_config": GEMMA3_TEXT | {
                "dtype": "bfloat16", "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
                "rope_parameters": {
                    "full_attention": {"factor": 8.0, "rope_theta": 1000000.0, "rope_type": "linear"},
                    "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}},
                "use_bidirectional_attention": False},
            "transformers_version": "5.0.0",
            "vision_config": {
                "attention_dropout": 0.0, "dtype": "bfloat16", "hidden_act": "gelu_pytorch_tanh", "hidden_size": 16,
                "image_size": 16, "intermediate_size": 16, "layer_norm_eps": 1e-06, "model_type": "siglip_vision_model",
                "num_attention_heads": 2, "num_channels": 3, "num_hidden_layers": 1, "patch_size": 4,
                "vision_use_head": False},
        },
        tokenizer="gemma", template="gemma3.jinja", place="chat_template.jinja", eos="<eos>", prompts=PLAIN, gemma=True,
        salt=5,
        generation={"bos_token_id": 2, "do_sample": True, "eos_token_id": [1, 5], "pad_token_id": 0, "top_k": 64,
                    "top_p": 0.95, "transformers_version": "5.0.0"},
        chats=("user", "system", "turns", "continue", "error", "parts"), mutations=_GEMMA3_MUTATIONS,
    ),
    "phi3": Family(
        config={
            "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
            "embd_pdrop": 0.0, "eos_token_id": 507, "hidden_act": "silu", "hidden_size": 64,
            "initializer_range": 0.02, "intermediate_size": 160, "max_position_embeddings": 8192, "model_type": "phi3",
            "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
            "original_max_position_embeddings": 64, "pad_token_id": 507, "partial_rotary_factor": 0.75,
            "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
            "rope_scaling": {"long_factor": PHI_LONG, "short_factor": PHI_SHORT, "type": "longrope"},
            "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
            "transformers_version": "4.43.3", "use_cache": True, "vocab_size": VOCAB,
        },
        tokenizer="phi", template="phi3.jinja", eos="<|endoftext|>", sharp=1.05,
        generation={"_from_model_config": True, "bos_token_id": 1, "eos_token_id": [507, 510], "pad_token_id": 507,
                    "transformers_version": "4.43.3"},
        prompts={"short": 10, "below": 36, "crossing": 60, "long": 4200},
        chats=("user", "system", "turns", "continue", "skipped"),
        mutations={
            "activation": m.config(hidden_act="gelu"), "norm weights one": m.norms(1.0), "tiled heads": m.tiled,
            "gate and up swapped": m.swapped_gate, "full rotary": m.full_rotary,
            "long factors everywhere": m.nested("rope_scaling", short_factor=PHI_LONG),
            "short factors everywhere": m.nested("rope_scaling", long_factor=PHI_SHORT),
            "attention factor one": m.nested("rope_scaling", attention_factor=1.0), "bf16 rope table": m.bf16_table},
    ),
}
