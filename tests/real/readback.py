"""Reads exported folders with whatever transformers is installed, without Hookline; `make real-oldest` compares two versions.

readback.py read EXPORTS OUT      # OUT.json and OUT.safetensors: texts, ids, answers, and logits or scores
readback.py compare NEW OLD PAGE  # a table between the marks of PAGE; fails where the two differ
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

ASKED = ["open the file", "close the list", "read the value", "write the name"]
TALK = [{"role": "user", "content": ASKED[0]}, {"role": "assistant", "content": "To open the file."}]
TEXTS = ["To open the file.", "a  b\n\tc", "naïve cafe\u0301 …🙂", "<|im_end|> </s> <eos>"]
MOST = 40
"""Tokens of an answer."""
NEAR = 1e-5


def read(folder: Path) -> tuple[dict[str, Any], torch.Tensor]:
    """What a folder gives: (texts, ids and answers, logits or scores)."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rendered = tokenizer.apply_chat_template(TALK, tokenize=False)
    found = {
        "rendered": rendered,
        "ids": [tokenizer(text)["input_ids"] for text in TEXTS],
        "decoded": [tokenizer.decode(tokenizer(text)["input_ids"]) for text in TEXTS],
    }
    ids = torch.tensor([tokenizer(rendered, add_special_tokens=False)["input_ids"]])
    if "ForSequenceClassification" in (folder / "config.json").read_text():
        scorer = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        return found, scorer(input_ids=ids).logits.detach()
    net = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ends = net.generation_config.eos_token_id
    said = []
    for text in ASKED:
        asked = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        out = net.generate(prompt, max_new_tokens=MOST, do_sample=False, attention_mask=torch.ones_like(prompt))
        said.append(out[0, prompt.shape[1] :].tolist())
    stops = [one[-1] in (ends if isinstance(ends, list) else [ends]) for one in said]
    found |= {"said": said, "stops": stops, "texts": [tokenizer.decode(one, skip_special_tokens=True) for one in said]}
    return found, net(input_ids=ids).logits.detach()


def read_all(root: Path, out: str) -> None:
    from safetensors.torch import save_file
    from transformers import __version__

    readings: dict[str, Any] = {"transformers": __version__, "torch": torch.__version__}
    tensors = {}
    for folder in sorted(path.parent for path in root.glob("*/*/config.json")):
        name = folder.relative_to(root).as_posix()
        readings[name], tensors[name] = read(folder)
    Path(f"{out}.json").write_text(json.dumps(readings), encoding="utf-8")
    save_file(tensors, f"{out}.safetensors")


def _gap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def compare(new: str, old: str, page: Path) -> int:
    from safetensors.torch import load_file

    readings = [json.loads(Path(f"{each}.json").read_text(encoding="utf-8")) for each in (new, old)]
    tensors = [load_file(f"{each}.safetensors") for each in (new, old)]
    versions = [each.pop("transformers") for each in readings]
    torches = {each.pop("torch") for each in readings}
    lines = [
        f"Read back by transformers {versions[0]} and {versions[1]} (torch {', '.join(sorted(torches))}), by `make real-oldest`:\n",
        "| folder | exports | logits and scores differ by | chat, texts and ids | answers that stop |\n|---|---|---|---|---|",
    ]
    wrong = [] if tensors[0].keys() == tensors[1].keys() else ["the two versions read other folders"]
    both = sorted(tensors[0].keys() & tensors[1].keys())
    for folder in sorted({name.split("/")[0] for name in both}):
        names = [name for name in both if name.startswith(f"{folder}/")]
        gaps = [_gap(*(each[name] for each in tensors)) for name in names]
        unlike = [
            f"{name}: {key}"
            for name in names
            for key in readings[0][name]
            if readings[0][name][key] != readings[1][name].get(key)
        ]
        wrong += unlike + [f"{name}: {gap:.1e}" for name, gap in zip(names, gaps) if gap > NEAR]
        stops = [[stop for name in names for stop in each[name].get("stops", ())] for each in readings]
        shown = " and ".join(f"{sum(each)} of {len(each)}" for each in stops)
        exports = ", ".join(name.split("/")[1] for name in names)
        lines.append(f"| {folder} | {exports} | {max(gaps):.1e} | {', '.join(unlike) or 'equal'} | {shown} |")
    table = "\n".join(lines)
    print(table)
    text = page.read_text(encoding="utf-8")
    before, mark, _ = text.partition("<!-- read back -->\n")
    page.write_text(f"{before}<!-- read back -->\n\n{table}\n" if mark else text, encoding="utf-8")
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    verb, first, second, *rest = sys.argv[1:]
    sys.exit(read_all(Path(first), second) if verb == "read" else compare(first, second, Path(rest[0])))
