"""Folders of reward models in the shapes that people bring, with seeded weights and tokenizers of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from shapes import SHAPES, build

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def judge(name: str, folder: Path, *, labels: tuple[str, ...] = ("LABEL_0",), pad: str = "own", template: bool = True) -> Path:
    """Write a reward model's folder of a shape. pad: `own`, `eos` or `none`; template: whether it has a chat template."""
    import transformers

    build(name, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if not template:
        (folder / "chat_template.jinja").unlink()
    config = transformers.AutoConfig.from_pretrained(folder)
    ids = {"own": len(tokenizer) - 1, "eos": tokenizer.convert_tokens_to_ids(SHAPES[name].ends[-1]), "none": None}
    config.pad_token_id = ids[pad]
    config.num_labels = len(labels)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    torch.manual_seed(7)
    net = transformers.AutoModelForSequenceClassification.from_config(config)
    net.score.weight.data.normal_(std=0.5)
    (folder / "model.safetensors").unlink()
    net.save_pretrained(folder)
    return folder


def transformers_scores(folder: Path, texts: list[Any], *, pad: int | None = None) -> torch.Tensor:
    """What transformers says of conversations (lists of messages), or of plain texts: [B, k], computed in one padded batch.

    pad: the id that pads, if config.json names none or the one that also ends a text.
    """
    import transformers

    net = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [
        tokenizer(text)["input_ids"]
        if isinstance(text, str)
        else tokenizer(tokenizer.apply_chat_template(text, tokenize=False), add_special_tokens=False)["input_ids"]
        for text in texts
    ]
    if pad is not None:
        net.config.pad_token_id = pad
    filler = net.config.pad_token_id
    with torch.no_grad():
        if filler is None:
            return torch.cat([net(input_ids=torch.tensor([row])).logits for row in rows])
        width = max(map(len, rows))
        ids = torch.tensor([row + [filler] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        found: torch.Tensor = net(input_ids=ids, attention_mask=mask).logits
        return found
