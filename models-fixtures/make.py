"""Makes the fixtures and checks them.

    python make.py all            every family fixture and templates.json
    python make.py NAME...        these (a family, `templates`, or `storyteller` for its goldens)
                                  quantised ones are made by quantised.py
    python make.py --check        makes everything again in a temporary folder and compares

Exit status 1 and a line for each difference when something differs. The storyteller is trained by
storyteller.py; here only its goldens and its accuracy are made, from its weights.
"""

import filecmp
import json
import sys
import tempfile
from pathlib import Path

import torch

import checkpoint
import goldens
import quantised
import storyteller
import templates_table
from families import FAMILIES

HERE = Path(__file__).parent
TOLERANCE = 1e-4  # of logits, between machines
NOTICED = 5e-2  # what every mutation must move at least one prompt's logits by


def distance(a, b):
    """The relative difference of two vectors."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return float((a - b).norm() / b.norm())


def check_reload(folder, model, tensors, ids):
    """The written folder, and its config as transformers 5 would write it, must give the same logits again."""
    load = checkpoint.AutoModelForCausalLM.from_pretrained
    again = load(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with tempfile.TemporaryDirectory() as other:
        again.config.save_pretrained(other)
        newer = checkpoint.build(json.loads((Path(other) / "config.json").read_text(encoding="utf-8")), Path(other))
    checkpoint.fill(newer, tensors)
    for loaded in (again, newer):
        moved = distance(goldens.last_logits(loaded, ids), goldens.last_logits(model, ids))
        assert moved < 1e-6, f"{folder.name}: reloaded logits differ by {moved}"


def check_tokenizer(folder, tokenizer):
    """`AutoTokenizer`, whatever class it picks, must agree with the pipeline in `tokenizer.json`."""
    auto = checkpoint.AutoTokenizer.from_pretrained(folder)
    for case in goldens.ENCODE:
        if auto.encode(case) != tokenizer.encode(case):
            print(f"note: {folder.name}: {type(auto).__name__} encodes {case!r} differently")
    assert auto.chat_template == tokenizer.chat_template


def check_mutations(name, model, tensors, prompts):
    """Every wrong model must be noticed by at least one prompt."""
    family = FAMILIES[name]
    right = {prompt: goldens.last_logits(model, ids) for prompt, _, ids in prompts}
    with tempfile.TemporaryDirectory() as folder:
        for what, mutate in family.mutations.items():
            config, changed, alter = mutate(family.config, tensors)
            wrong = checkpoint.build(config, Path(folder))
            checkpoint.fill(wrong, changed)
            if alter:
                alter(wrong)
            moved = {}
            for prompt, _, ids in sorted(prompts, key=lambda entry: len(entry[2])):
                moved[prompt] = distance(goldens.last_logits(wrong, ids), right[prompt])
                if moved[prompt] > NOTICED:
                    break
            print(f"  {what}: " + ", ".join(f"{prompt} {value:.3f}" for prompt, value in moved.items()), flush=True)
            if max(moved.values()) <= NOTICED:
                raise SystemExit(f"{name}: no prompt notices the mutation `{what}`")


def make_family(name, folder):
    print(name, flush=True)
    family = FAMILIES[name]
    model, tensors = checkpoint.write(name, folder)
    tokenizer = checkpoint.load_tokenizer(folder)
    prompts = [(key, *goldens.prompt_ids(key, count, tokenizer, name)) for key, count in family.prompts.items()]
    check_reload(folder, model, tensors, prompts[1][2])
    check_tokenizer(folder, tokenizer)
    check_mutations(name, model, tensors, prompts)
    golden = goldens.golden(model, tokenizer, prompts, family.chats)
    for entry in golden["prompts"]:
        spread = torch.tensor(entry["logits"]).std().item()
        print(f"  {entry['name']}: {len(entry['tokens'])} tokens, logits' deviation {spread:.2f}, bf16 error {entry['bf16']}")
        assert 1.4 < spread < 6, f"{name}: logits spread by {spread}"
    goldens.write(folder / "golden.json", golden)


def make(name, folder):
    if name == "templates":
        templates_table.write(folder.parent / "templates.json")
    elif name == "storyteller":
        storyteller.write_goldens(folder)
    else:
        make_family(name, folder)


def compare_goldens(name, kept, made):
    """Lines that say where two goldens differ."""
    faults = [f"{name}: {key} has {len(made[key])} entries instead of {len(kept[key])}"
              for key in ("encode", "decode", "chats", "prompts") if len(made[key]) != len(kept[key])]
    for key in ("encode", "decode", "chats"):
        for old, new in zip(kept[key], made[key]):
            if old != new:
                faults.append(f"{name}: {key} of {str(old.get('text', old.get('name')))[:60]!r} differs")
    for old, new in zip(kept["prompts"], made["prompts"]):
        moved = distance(new["logits"], old["logits"])
        if moved > TOLERANCE:
            faults.append(f"{name}: logits of `{old['name']}` differ by {moved:.2e}")
        for key in ("name", "text", "tokens"):
            if old[key] != new[key]:
                faults.append(f"{name}: {key} of prompt `{old['name']}` differs")
        scale = max(map(abs, old["logits"]))
        for step, (a, b, margin) in enumerate(zip(old["greedy"], new["greedy"], old["margins"])):
            if a != b:
                if margin > TOLERANCE * scale:
                    faults.append(f"{name}: greedy token {step} of `{old['name']}` differs")
                break
    return faults


def compare(name, kept, made):
    """Lines that say where two fixtures differ."""
    if name == "templates":
        same = (kept.parent / "templates.json").read_bytes() == (made.parent / "templates.json").read_bytes()
        return [] if same else ["templates.json differs"]
    faults = []
    files = {path.name for path in kept.iterdir()} | {path.name for path in made.iterdir()}
    for file in sorted(files - {"golden.json"}):
        if not (kept / file).exists() or not (made / file).exists():
            faults.append(f"{name}: {file} is in only one of the two")
        elif not filecmp.cmp(kept / file, made / file, shallow=False):
            faults.append(f"{name}: {file} differs")
    read = [json.loads((folder / "golden.json").read_text(encoding="utf-8")) for folder in (kept, made)]
    return faults + compare_goldens(name, *read)


def check():
    """Makes all again elsewhere and compares; returns the exit status."""
    faults = []
    with tempfile.TemporaryDirectory() as root:
        for name in [*FAMILIES, "templates"]:
            folder = Path(root) / name
            make(name, folder)
            faults += compare(name, HERE / name, folder)
    faults += storyteller.check(compare_goldens)
    faults += quantised.check(compare_goldens)
    print("\n".join(faults) or "all fixtures are as made")
    return 1 if faults else 0


def main(arguments):
    torch.set_num_threads(2)
    if arguments == ["--check"]:
        return check()
    names = [*FAMILIES, "templates"] if arguments == ["all"] else arguments
    for name in names:
        make(name, HERE / name)
    return 0 if names else print(__doc__) or 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
