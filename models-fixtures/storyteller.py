"""The fixture that speaks: a small Qwen 3, trained from scratch on text from our own grammars.

    python storyteller.py train     trains and writes `storyteller/` (20 to 30 minutes on two cores)
    python storyteller.py talk      prints samples and the accuracy of the written weights
"""

import json
import math
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoConfig, GenerationConfig, Qwen3ForCausalLM

import checkpoint
import facts
import families
import goldens
import sentences
import tales
import tokenizers_

HERE = Path(__file__).parent
FOLDER = HERE / "storyteller"
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCAB = 1024
BATCH_TOKENS = 4096
HELD_OUT_PER_LABEL = 60
STORIES = 24


@dataclass
class Stage:
    """A part of the training, with an optimizer of its own."""

    steps: int
    horizon: int  # steps after which the learning rate would be 2 % of its peak
    rate: float  # peak learning rate
    seed: int
    kinds: tuple  # weights of stories, chats and classifications
    loose: float = 0.0  # share of the classifications whose sentence is broken
    stories: float = 0.0  # share of the chats that ask for a story


# First the language at a high rate, then sentences without their frames while the rate falls, then more stories,
# whose things and animals must stay the same from line to line.
STAGES = [
    Stage(900, 1800, 3e-3, 11, (22, 40, 38)),
    Stage(400, 400, 1.5e-3, 12, (20, 38, 42), loose=0.55, stories=0.15),
    Stage(350, 350, 1.5e-3, 13, (45, 30, 25), loose=0.5, stories=0.4),
]


# `config.json`, as Qwen 3 has it; the end tokens' ids are filled in.
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None,
    "eos_token_id": None, "head_dim": 64, "hidden_act": "silu", "hidden_size": 192, "initializer_range": 0.05,
    "intermediate_size": 576, "max_position_embeddings": 1024, "max_window_layers": 5, "model_type": "qwen3",
    "num_attention_heads": 4, "num_hidden_layers": 5, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": None, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": VOCAB,
}


def tokenizer():
    """Byte-level BPE in which each label with its leading space is one token."""
    lines = tokenizers_.text(3, stories=2500) + [sentences.prompt("x") + " " + label for label in sentences.LABELS] * 500
    built = tokenizers_.byte_level(VOCAB, tokenizers_.QWEN_PATTERN, [END, START, STOP], nfc=True, lines=lines)
    for label in sentences.LABELS:
        assert len(built.encode(" " + label).ids) == 1, f"label {label} is not one token"
    return built


def pieces(rng, stage):
    """One training example as (text, weight of its loss) pieces."""
    kind = rng.choices(["story", "chat", "label"], stage.kinds)[0]
    if kind == "story":
        return [(tales.story(rng) + END, 1.0)]
    if kind == "label":
        loose = stage.loose and rng.random() < stage.loose
        label, text = sentences.loose_sentence(rng) if loose else sentences.sentence(rng)
        before, after = sentences.prompt("\0").split("\0")
        return [(before, 0.0), (text + after, 0.1), (f" {label}{END}", 4.0)]
    parts = []
    for message in facts.chat(rng, stage.stories):
        parts.append((f"{START}{message['role']}\n", 0.0))
        answer = message["role"] == "assistant"
        parts += [(message["content"] + STOP, 1.0 if answer else 0.05), ("\n", 0.0)]
    return parts


def example(tok, rng, stage):
    """Token ids and the loss weight of each id; encoded as one text, so borders merge as they do in use."""
    parts = pieces(rng, stage)
    whole = "".join(text for text, _ in parts)
    encoded = tok.encode(whole, add_special_tokens=False)
    ends, at = [], 0
    for text, weight in parts:
        at += len(text)
        ends.append((at, weight))
    weights = [next(w for end, w in ends if start < end) for start, _ in encoded.offsets]
    return encoded.ids, weights


def batches(tok, stage):
    """Endless batches of (ids, weights), rows of like length together."""
    rng = random.Random(stage.seed)
    while True:
        pool = sorted((example(tok, rng, stage) for _ in range(1500)), key=lambda row: len(row[0]))
        groups, group = [], []
        for row in pool:
            if group and (len(group) + 1) * len(row[0]) > BATCH_TOKENS:
                groups.append(group)
                group = []
            group.append(row)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in group])
            weights = torch.tensor([w + [0.0] * (width - len(w)) for _, w in group])
            yield ids, weights


def learn(model, tok, stage):
    """One stage of the training, in place."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=stage.rate, betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 60) * (
        0.02 + 0.98 * 0.5 * (1 + math.cos(step / stage.horizon * math.pi))))
    model.train()
    begin, total = time.time(), 0.0
    for step, (ids, weights) in zip(range(1, stage.steps + 1), batches(tok, stage)):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weights = weights[:, 1:].flatten()
        loss = (loss * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 25 == 0:
            print(f"step {step} loss {total / 25:.4f} {(time.time() - begin) / step:.2f} s/step", flush=True)
            total = 0.0
    return model.eval()


def train():
    torch.manual_seed(7)
    tok = tokenizer()
    model = Qwen3ForCausalLM(AutoConfig.for_model(**CONFIG))
    for stage in STAGES:
        learn(model, tok, stage)
    return model, tok


def write(model, tok, folder=FOLDER):
    """The checkpoint in bf16, the sentences for `classify`, and stories to measure by."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: tok.token_to_id(name) for name in (END, START, STOP)}
    checkpoint.write_json(folder / "config.json", CONFIG | {"bos_token_id": ids[END], "eos_token_id": ids[STOP]})
    checkpoint.write_json(folder / "generation_config.json", {
        "bos_token_id": ids[END], "do_sample": True, "eos_token_id": [ids[STOP], ids[END]], "pad_token_id": ids[END],
        "temperature": 0.8, "transformers_version": "4.51.0"})
    extra = families.TOKENIZERS["qwen"][1] | {"model_max_length": 1024}
    checkpoint.write_tokenizer(folder, tok, extra, STOP, "storyteller.jinja", "chat_template.jinja")
    tensors = {key: value.bfloat16().contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"}
    checkpoint.save(folder / "model.safetensors", tensors)
    with open(folder / "classify.jsonl", "w", encoding="utf-8") as file:
        for label, text in held_out():
            file.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    (folder / "stories.txt").write_text(stories(), encoding="utf-8")


def held_out():
    """Sentences of held-out frames, as many of each label."""
    rng = random.Random(99)
    rows = [sentences.sentence(rng, label, held_out=True) for label in sentences.LABELS for _ in range(HELD_OUT_PER_LABEL)]
    rng.shuffle(rows)
    return rows


def stories():
    """Stories that training is most unlikely to have told, one a line."""
    rng = random.Random(98)
    return "".join(tales.story(rng) + "\n" for _ in range(STORIES))


def load(folder=FOLDER):
    """The reference's model, in f32 on the stored bf16 weights, and the tokenizer."""
    model = checkpoint.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), checkpoint.load_tokenizer(folder)


def say(model, tok, text, count=200, temperature=0.0):
    """What follows a text, up to the end token."""
    ids = torch.tensor([tok.encode(text)])
    settings = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    config = GenerationConfig(max_new_tokens=count, pad_token_id=0, eos_token_id=tok.convert_tokens_to_ids([STOP, END]), **settings)
    model.generation_config = GenerationConfig()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, ids.shape[1]:]
    return tok.decode(out, skip_special_tokens=False)


def ask(model, tok, *turns, system=None):
    """The answer to the last of alternating turns."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    return say(model, tok, tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def accuracy(model, tok, rows):
    """The share of sentences whose next token is their label, and the mistakes."""
    wrong = []
    for label, text in rows:
        ids = torch.tensor([tok.encode(sentences.prompt(text))])
        with torch.no_grad():
            best = tok.decode([model(ids, logits_to_keep=1).logits[0, -1].argmax().item()])
        if best != f" {label}":
            wrong.append((label, best, text))
    return 1 - len(wrong) / len(rows), wrong


def write_goldens(folder):
    """`golden.json` from the stored weights."""
    model, tok = load()
    classify = sentences.prompt("The server crashed because the cache ran out of memory.")
    question = tok.apply_chat_template([{"role": "user", "content": "What colour is the sky?"}], tokenize=False, add_generation_prompt=True)
    prompts = [(name, text, tok.encode(text)) for name, text in (
        ("story", "Once upon a time"), ("chat", question), ("classify", classify))]
    golden = goldens.golden(model, tok, prompts, ("user", "system", "turns", "continue"))
    share, _ = accuracy(model, tok, rows_of(folder))
    golden["classify_accuracy"] = round(share, 4)
    goldens.write(folder / "golden.json", golden)


def rows_of(folder):
    lines = (folder / "classify.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["label"], row["text"]) for row in map(json.loads, lines)]


def check(compare):
    """Goldens and accuracy again from the stored weights; returns the differences as lines."""
    kept = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
    faults = []
    if rows_of(FOLDER) != held_out():
        faults.append("storyteller: classify.jsonl differs")
    if (FOLDER / "stories.txt").read_text(encoding="utf-8") != stories():
        faults.append("storyteller: stories.txt differs")
    with tempfile.TemporaryDirectory() as root:
        made = Path(root)
        tokenizer().save(str(made / "tokenizer.json"))
        if (made / "tokenizer.json").read_bytes() != (FOLDER / "tokenizer.json").read_bytes():
            faults.append("storyteller: tokenizer.json differs")
        (made / "classify.jsonl").write_bytes((FOLDER / "classify.jsonl").read_bytes())
        write_goldens(made)
        again = json.loads((made / "golden.json").read_text(encoding="utf-8"))
    if abs(kept["classify_accuracy"] - again["classify_accuracy"]) > 0.01:
        faults.append(f"storyteller: accuracy {again['classify_accuracy']} instead of {kept['classify_accuracy']}")
    return faults + compare("storyteller", kept, again)


def talk():
    """Samples and the accuracy, as the README shows them."""
    model, tok = load()
    for start in ("Once upon a time", "Long ago", "There once was a", "Once upon a time, there was a tiny mouse named"):
        print(">", start, "\n ", start + say(model, tok, start))
    torch.manual_seed(1)
    for _ in range(4):
        print("> Once upon a time (0.8)\n  Once upon a time" + say(model, tok, "Once upon a time", temperature=0.8))
    for turns in (["What colour is the sky?"], ["What color is grass?"], ["Who are you?"], ["What is 2 + 3?"],
                  ["What does a cow say?"], ["What is the capital of France?"], ["Tell me a story about a fox."],
                  ["Hello!"], ["What is the opposite of hot?"], ["What day comes after Monday?"],
                  ["Hello!", "Hello! How can I help you?", "What colour is snow?"]):
        print(">", turns[-1], "\n ", ask(model, tok, *turns), "|", ask(model, tok, *turns, system="You are a helpful assistant."))
    right = total = 0
    rng = random.Random(5)
    for _ in range(300):
        question, answer = facts.question(rng, stories=False)
        right += ask(model, tok, question) == answer + STOP
        total += 1
    share, wrong = accuracy(model, tok, rows_of(FOLDER))
    print(f"chat answers right: {right / total:.3f} of {total}; classification right: {share:.4f}")
    print(*wrong, sep="\n")


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:] == ["train"]:
        write(*train())
    write_goldens(FOLDER)
    talk()
