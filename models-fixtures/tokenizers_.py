"""The tokenizers of the fixtures, each trained on our own text and laid out as its family publishes it."""

import json
import random
import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import facts
import sentences
import tales

# The pattern of Qwen 2 and 3 (one digit a piece) and of Llama 3 (up to three).
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_PATTERN = QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

SNIPPETS = """def main(args):\n    for i in range(10):\n        print(i, args[i])\n    return None
fn sum(values: &[f32]) -> f32 { values.iter().sum() }
if (x == 0) { return "zero"; } else { count += 1; }
{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}
Wie heißt du? Ich heiße Anna und wohne in München.
Où est la forêt? Le café est près de l'église.
El niño y la niña están en la montaña.
Привет, как дела? Всё хорошо, спасибо.
你好，世界。今天天气很好。 こんにちは、世界。
1, 2, 3, 10, 42, 100, 2024; 3.14159 + 2.71828 = 5.85987
""".splitlines()


def text(seed=1, stories=600):
    """Lines of stories, questions, sentences and snippets."""
    rng = random.Random(seed)
    lines = []
    for _ in range(stories):
        lines.append(tales.story(rng))
        lines += [part for _ in range(3) for part in facts.question(rng)]
        lines += [sentences.sentence(rng)[1] for _ in range(2)]
    return lines + SNIPPETS * 20


def _special(tokenizer, names):
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])


def byte_level(vocab_size, pattern, specials, plain=(), bos=None, nfc=False, lines=None):
    """Byte-level BPE; `specials` then `plain` (not special) added tokens follow the trained vocabulary.

    `vocab_size` counts them all. With `bos`, the post-processor puts it in front.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=bos is not None))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials) - len(plain), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(lines or text(), trainer)
    _special(tokenizer, specials)
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in plain])
    byte_post = processors.ByteLevel(trim_offsets=False)
    if bos is None:
        tokenizer.post_processor = byte_post
    else:
        template = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
        tokenizer.post_processor = processors.Sequence([byte_post, template])
    return tokenizer


def byte_fallback(vocab_size, specials, bos, prefix_space, late=(), unknown="<unk>"):
    """SentencePiece-like BPE with byte fallback: Gemma's with `prefix_space` off, Llama 2's and Mistral's with it on.

    The ids are in the published order: specials, the 256 bytes, then the trained pieces. The `late` specials
    follow behind `vocab_size` and swallow white space on their right, as Phi 3's do. Without `bos`, nothing is added.
    """
    words = Tokenizer(models.BPE(unk_token=unknown))
    words.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    size = vocab_size - len(specials) - 256
    alphabet = sorted("▁.,!?'\":0123456789" + string.ascii_letters)  # anything else falls back to bytes
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False)
    words.train_from_iterator(text(2), trainer)
    model = json.loads(words.to_str())["model"]
    vocab = {name: i for i, name in enumerate(specials)}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1]):
        vocab.setdefault(piece, len(vocab))
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(
        vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True, ignore_merges=False,
    ))
    replace = normalizers.Replace(" ", "▁")
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix_space:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        back.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(back)
    _special(tokenizer, specials)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False, rstrip=True) for name in late])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, vocab[bos])],
        )
    return tokenizer
