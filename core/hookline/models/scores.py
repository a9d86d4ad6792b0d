"""Folders of reward models: which scores a folder holds, found in its configs and the names of its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hookline.errors import ExperimentError
from hookline.models.folder import check_folder

__all__ = ["AT", "BIAS", "HEAD", "SCORE", "Scores", "score_labels", "scores_of", "stored_score"]

HEAD = "reward"
"""The name of the head that a folder's score layer becomes."""
SCORE = "score"
"""transformers' name of the score layer of its models for sequence classification."""
OWN = f"heads.{HEAD}.inner"
"""The score layer in the folder of a phase."""
AT = "hookline_score_at"
"""The entry of an exported config.json that says where scores are read."""
BIAS = "hookline_score_bias"
"""The entry of an exported config.json with the bias of each score, which transformers' classes do not add."""


@dataclass(frozen=True)
class Scores:
    """The scores that a folder's model gives to a text."""

    labels: tuple[str, ...]
    """The name of each score."""
    at: Literal["text", "answer"] = "text"
    """Where they are read: at the last token of the whole text, or at the token that ends the answer, as models are
    trained here; a template may write more behind it."""
    pad: int | None = None
    """The token that pads, by config.json, before the first of which transformers reads the scores; None if it names none."""


def score_labels(path: str) -> tuple[str, ...]:
    """The names of the scores of a reward model's folder, as its config.json gives them; reads no weights.

    path: a folder for transformers' AutoModelForSequenceClassification, or of a phase that trained a head `reward`. Raises
    ExperimentError for a folder that is incomplete, asks to run its own code, or whose score is not one linear layer.
    """
    check_folder(path)
    found = scores_of(path)
    if found is None:
        raise ExperimentError(
            f"the model in {path} gives no score: {_kind(_config(path)) or 'it'} predicts tokens",
            "name a folder for AutoModelForSequenceClassification, or a phase that trained `head: reward`",
        )
    return found.labels


def scores_of(path: str | Path) -> Scores | None:
    """The scores of a complete model folder; None for a language model. Raises ExperimentError for scores of other kinds."""
    config = _config(path)
    kind = _kind(config)
    try:
        shapes = _shapes(path)
    except ExperimentError:
        if kind.endswith("ForSequenceClassification"):
            raise
        return None  # the weights are refused where they are read
    if f"{OWN}.weight" in shapes:
        return Scores(_outputs(path) or (HEAD,), "answer") if shapes[f"{OWN}.weight"][0] in (1, len(_outputs(path))) else None
    if kind.endswith("ForTokenClassification"):
        raise ExperimentError(
            f"the model in {path} scores tokens ({kind}), as process reward models do, not a whole answer",
            "name a model for sequence classification, which gives one score to a text",
        )
    other = next((name for name in shapes if name.startswith(("v_head.", "value_head."))), None)
    prefix = config.get("value_head_prefix", SCORE)
    if prefix != SCORE or (other and f"{SCORE}.weight" not in shapes):
        called = prefix if prefix != SCORE else str(other).partition(".")[0]
        raise ExperimentError(
            f"the score of {path} is a layer called '{called}', which transformers does not read",
            f"save the model with this layer as {SCORE}.weight, and its class as …ForSequenceClassification in config.json",
        )
    if f"{SCORE}.weight" in shapes:
        count = shapes[f"{SCORE}.weight"][0]
        named = config.get("id2label")
        labels = [named.get(str(i)) if isinstance(named, dict) else None for i in range(count)]
        return Scores(
            tuple(str(label or f"LABEL_{i}") for i, label in enumerate(labels)),
            "answer" if config.get(AT) == "answer" else "text",
            config.get("pad_token_id"),
        )
    if kind.endswith("ForSequenceClassification"):
        trunk = max((name.partition(".")[0] for name in shapes), key=[n.partition(".")[0] for n in shapes].count, default="")
        beside = [name for name in sorted(shapes) if name.partition(".")[0] not in (trunk, "lm_head")]
        has = f"; besides the trunk, its weights are {', '.join(beside[:4])}" if beside else "; the weight is missing"
        raise ExperimentError(
            f"the score of {path} is not one linear layer '{SCORE}' behind a model that reads from left to right{has}",
            "name a reward model that transformers' own class scores with one layer, as TRL and OpenRLHF train them",
        )
    return None


def _outputs(path: str | Path) -> tuple[str, ...]:
    """The names of the outputs of a phase's head `reward`; none if it has one."""
    about = Path(path) / "role.json"
    found = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    return tuple(map(str, found.get("outputs", {}).get(HEAD, ())))


def stored_score(path: str | Path) -> dict[str, Tensor]:
    """The score layer in the folder of a phase: `weight` [k, H] of its k outputs, and `bias` [k] if it has one; empty for other folders."""
    from safetensors import safe_open

    found = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in ("weight", "bias"):
                if f"{OWN}.{name}" in stored.keys():  # noqa: SIM118
                    found[name] = stored.get_tensor(f"{OWN}.{name}")
    return found


def _shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of every stored weight by name, from the headers of the files."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118
                    found[name] = tuple(stored.get_slice(name).get_shape())
        except (OSError, SafetensorError) as err:
            why = " ".join(str(err).split())[:200]
            raise ExperimentError(
                f"the model folder {path} cannot be loaded: {file.name}: {why}", "give a complete transformers folder"
            ) from None
    return found


def _config(path: str | Path) -> Mapping[str, Any]:
    found = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)  # check_folder has read it
    return found


def _kind(config: Mapping[str, Any]) -> str:
    """The class that saved the folder."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""
