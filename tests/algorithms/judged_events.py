"""Events of every kind, and an experiment that learns a reward from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXTS = ("abc def", "abd def", "xyz", "long text")


def event(answer: Mapping[str, Any], n: int = 2, who: str = "ann", **rest: Any) -> dict[str, Any]:
    candidates = [{"text": text} for text in TEXTS[:n]]
    return {"prompt": "p ", "candidates": candidates, "answer": answer, "annotator": who, **rest}


EVENTS = [
    event({"kind": "comparison", "better": 1, "strength": 3}, shown=[1, 0]),
    event({"kind": "comparison", "better": "tie"}, who="bob"),
    event({"kind": "comparison", "better": "both-bad"}, who="bob"),
    event({"kind": "ranking", "order": [[2], [0, 1]]}, n=4),
    event({"kind": "rating", "of": 1, "marks": {"overall": 4.0}}, who="cem"),
    event({"kind": "thumb", "of": 0, "up": True}),
    event({"kind": "thumb", "of": 1, "up": False}),
    event({"kind": "thumb", "of": 2, "up": True}, n=3),
    event({"kind": "correction", "of": 0, "text": "abc dxf"}),
    event({"kind": "spans", "of": 0, "spans": [
        {"start": 0, "end": 3, "label": "good", "worth": 1.0}, {"start": 2, "end": 5, "label": "wrong"},
    ]}),
    event({"kind": "comment", "text": "hm"}),
    event({"kind": "skip"}),
]  # fmt: skip


def experiment(
    path: Path, events: list[dict[str, Any]], update: Mapping[str, Any] | None = None, **rollout: Any
) -> dict[str, Any]:
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    texts = path.with_name("texts.txt")
    texts.write_text("@@@@ #### " * 9)  # so that a token of a judgement is one byte
    read = sum(one.get("answer", {}).get("kind") not in ("comment", "skip") for one in events)
    rollout = {"use": "judgements", "path": str(path), "rows": max(1, read), "worths": {"wrong": -2.0}, **rollout}
    return {
        "name": "judged", "seed": 1, "threads": 1, "device": "cpu", "trackers": [],
        "tokenizer": {"train": "bpe", "on": str(texts), "vocabulary": 262},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 32},
        "phases": [{
            "name": "learn", "model": {"head": {"use": "reward", "std": 1.0}}, "rollout": rollout, "steps": 2,
            "update": {"use": "latent-reward", "lr": 1e-3, **(update or {})},
            "evaluate": [{"every": 1, "rollout": rollout, "rows": 100}],
        }],
    }  # fmt: skip
