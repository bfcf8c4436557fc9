"""What the reference makes of a checkpoint: logits, greedy continuations, encodings and chats, for `golden.json`."""

import copy
import json
import random

import torch
import transformers
from transformers import GenerationConfig

import tales
from conversations import CHATS

STEPS = 24
LONG_STEPS = 8
LONG = 1000  # tokens; longer prompts are made-up ids and have few steps

ENCODE = [
    "", " ", "Hello, world!", "  two leading and two trailing spaces  ", "tabs\tand\t\ttabs\nand new\n\nlines\r\n",
    "a family 👨‍👩‍👧‍👦, a flag 🇩🇪 and a hand 👍🏽", "你好，世界。こんにちは 안녕하세요", "composed \u00e9 \u00fc \u00f1, decomposed e\u0301 u\u0308 n\u0303",
    "1 12 123 1234 12345 3.14159 2024-11-24", "def f(x):\n    if x > 0:\n\treturn {'a': x[1:]}\n    # <b>&amp;</b>",
    "I'm, you'RE, we'll; don't! \"Quotes\" (and) [INST] brackets [/INST]",
    "text that spells <|im_start|> <|eot_id|> <|end|> <end_of_turn> <s> </s> <bos> <0x41> <think> ▁ Ġ",
    "Once upon a time, there was a little fox named Mia.", "zero\u200bwidth\u00a0space and \ufeffBOM",
]


def rounded(values, digits=6):
    return [float(f"{value:.{digits}g}") for value in values]


def reset(model):
    """Dynamic RoPE keeps the frequencies of the longest text so far: back to those of a new model."""
    with torch.no_grad():
        model(torch.tensor([[1]]))


def last_logits(model, ids):
    reset(model)
    with torch.no_grad():
        return model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].float()


def greedy(model, ids, steps):
    """The ids and, for each, how far the best logit was above the second."""
    reset(model)
    settings = GenerationConfig(do_sample=False, max_new_tokens=steps, eos_token_id=None, bos_token_id=None,
                                pad_token_id=None, output_logits=True, return_dict_in_generate=True)
    model.generation_config = GenerationConfig()
    prompt = torch.tensor([ids])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    ids = out.sequences[0, len(ids):].tolist()
    assert len(ids) == steps, "the continuation ended early"
    tops = [step[0].float().topk(2) for step in out.logits]
    assert [top.indices[0].item() for top in tops] == ids
    return ids, [(top.values[0] - top.values[1]).item() for top in tops]


def prompt_ids(name, count, tokenizer, seed):
    """About `count` tokens of a story; beyond LONG, made-up ids."""
    rng = random.Random(f"{seed} {name}")
    if count > LONG:
        start = tokenizer.encode("")
        plain = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
        return None, start + [rng.choice(plain) for _ in range(count - len(start))]
    words = " ".join(tales.story(rng) for _ in range(3)).split(" ")
    text = words[0]
    for word in words[1:]:
        if len(tokenizer.encode(f"{text} {word}")) > count:
            break
        text = f"{text} {word}"
    return text, tokenizer.encode(text)


def prompt(model, tokenizer, name, text, ids):
    """One entry of `prompts`."""
    steps = LONG_STEPS if len(ids) > LONG else STEPS
    ids_out, margins = greedy(model, ids, steps)
    return {
        "name": name, "text": text, "tokens": ids, "logits": rounded(last_logits(model, ids).tolist()),
        "greedy": ids_out, "greedy_text": decode(tokenizer, ids_out), "margins": rounded(margins),
    }


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def encode_cases(tokenizer):
    return [{
        "text": text, "ids": tokenizer.encode(text), "plain": tokenizer.encode(text, add_special_tokens=False),
        "literal": tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True),
    } for text in ENCODE]


def byte_ids(tokenizer, data):
    """The ids of single bytes, however the vocabulary spells them."""
    from tokenizers.pre_tokenizers import ByteLevel
    vocab = tokenizer.get_vocab()
    if "<0x00>" in vocab:
        return [vocab[f"<0x{byte:02X}>"] for byte in data]
    # ByteLevel writes printable bytes as they are and the others from U+0100 on, in order.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    assert len(ByteLevel.alphabet()) == 256
    return [vocab[chr(b) if b in printable else chr(256 + others.index(b))] for b in data]


def decode_cases(tokenizer):
    """Ids and their text: split and broken UTF-8, special tokens inside, spaces at the ends."""
    def plain(text):
        return tokenizer.encode(text, add_special_tokens=False)

    party = byte_ids(tokenizer, "🎉".encode())
    special = tokenizer.all_special_ids
    lists = [
        [], plain(" leading space"), plain("no leading space"), tokenizer.encode("With its BOS"), plain("two  spaces \n"),
        plain("Mia")[-1:], plain(" fox")[:1], plain("a fox, a cat")[1:], party, party[:2], party[2:], party[:3] + plain("x"),
        byte_ids(tokenizer, b"a\xff\xfeb"), byte_ids(tokenizer, b"\xc3\xa9\xc3"), byte_ids(tokenizer, b"\xe4\xbd\xa0\xe5\xa5"),
        byte_ids(tokenizer, b"\xf0\x9f") + plain("!") + byte_ids(tokenizer, b"\x8e\x89"),
        plain("before") + special[:1] + plain("after"), party[:2] + special[-1:] + party[2:],
        special + plain(" tail") + special, plain("你好"), plain("é"), byte_ids(tokenizer, b"\n\t \x00"),
        [i for i in range(min(len(tokenizer), 512)) if i % 37 == 5],
    ]
    return [{"ids": ids, "text": decode(tokenizer, ids)} for ids in lists]


def chat(tokenizer, name, case, templates):
    """One entry of `chats`, rendered and tokenised or with the template's error."""
    entry = {"name": name, "messages": case["messages"], "add_generation_prompt": case.get("generate", True),
             "continue_final_message": case.get("continue", False), "variables": case.get("variables", {}),
             "tools": case.get("tools")}
    if templates:
        entry["template"] = "tool_use" if entry["tools"] else "default"
    arguments = dict(
        tools=entry["tools"], add_generation_prompt=entry["add_generation_prompt"],
        continue_final_message=entry["continue_final_message"], **entry["variables"])
    try:
        entry["rendered"] = tokenizer.apply_chat_template(entry["messages"], tokenize=False, **arguments)
    except Exception as error:  # noqa: BLE001 - the template's own raise_exception, of any class
        return entry | {"error": str(error)}
    entry["tokens"] = tokenizer.apply_chat_template(entry["messages"], tokenize=True, return_dict=False, **arguments)
    if case.get("sanitise"):
        entry["sanitised"] = tokenizer.apply_chat_template(
            entry["messages"], tokenize=True, return_dict=False, sanitize_control_tokens=True, **arguments)
    return entry


def chats(tokenizer, names):
    named = isinstance(tokenizer.chat_template, dict)
    return [chat(tokenizer, name, CHATS[name], named) for name in (*names, "spelled specials")]


def half_errors(model, prompts):
    """By prompt, how far the reference's own logits are off when it computes in bf16."""
    full = {name: last_logits(model, ids) for name, _, ids in prompts}
    half = copy.deepcopy(model).bfloat16()
    for module, exact in zip(half.modules(), model.modules()):  # from_pretrained keeps these in f32
        for name, value in exact.named_buffers(recurse=False):
            setattr(module, name, value.clone())
    return {name: float((last_logits(half, ids) - full[name]).norm() / full[name].norm()) for name, _, ids in prompts}


def reference():
    return {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}


def golden(model, tokenizer, prompts, chat_names):
    """`golden.json` of a checkpoint; `prompts` are (name, text, ids)."""
    errors = half_errors(model, prompts)
    return {
        "reference": reference(),
        "prompts": [prompt(model, tokenizer, *entry) | {"bf16": round(errors[entry[0]], 4)} for entry in prompts],
        "encode": encode_cases(tokenizer), "decode": decode_cases(tokenizer), "chats": chats(tokenizer, chat_names),
    }


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
