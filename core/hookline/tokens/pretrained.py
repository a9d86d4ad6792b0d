"""What a model folder says about its tokenizer: its classes, its ends, its chat template; and each decision in words."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hookline.errors import DataError, ExperimentError, nearest

__all__ = ["FILES", "OWN", "Pretrained", "check_model", "json_of", "pretrained", "template_text"]

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "additional_chat_templates", "generation_config.json",
)  # fmt: skip
"""The files of a folder that say how text becomes tokens, and when an answer ends; an export has them unchanged."""
OWN = "tokenizer_choices.json"
"""What the experiment chose instead of what the folder says."""
NASTY = ("a  b\n\tc", "naïve cafe\u0301", "…🙂", "  x", "A1b2", "日本")


@dataclass
class Pretrained:
    """A folder's tokenizer."""

    outer: Any
    """transformers' tokenizer."""
    prefix: list[int]
    """What it puts before a text."""
    ends: list[int]
    """Ids that end an answer; the first is the one that ends a text."""
    pad: int | None
    """None where the folder names none: a text's end then pads."""
    template: str = ""
    """The chat template, or empty."""
    for_tools: str = ""
    """The template that the folder has for conversations with tools, or empty."""
    source: str = ""
    """The file of the template."""
    decided: list[str] = field(default_factory=list)
    """One sentence for each decision, with the file that it follows."""


def pretrained(folder: Path, plain: Any, choices: Mapping[str, Any]) -> Pretrained:
    """Read the tokenizer of a folder as transformers does. plain: its tokenizer.json alone; choices: `eos`, `pad`,
    `chat_template` of the experiment.

    Raises DataError if the folder names no token that ends a text, or a token that is not in the vocabulary.
    """
    outer = _loaded(folder)
    said: list[str] = []
    known = plain.get_vocab(with_added_tokens=True)
    ends = _ends(folder, outer, known, choices.get("eos"), said)
    prefix = _prefix(outer)
    said.append(f"a text begins with {_shown(outer, prefix)}" if prefix else "nothing is put before a text")
    pad = outer.pad_token_id if outer.pad_token in known else None
    if choices.get("pad") is not None:
        pad = _id(outer, choices["pad"], "pad")
        said.append(f"padding is {choices['pad']}, as the experiment says")
    found = Pretrained(outer, prefix, ends, None if pad is None else int(pad), decided=said)
    _find_template(found, folder, choices.get("chat_template"))
    inner = getattr(outer, "backend_tokenizer", None)
    if inner is not None:
        _compare(plain, inner, said)
    return found


def _loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        if (folder / "tokenizer_config.json").is_file():
            return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    except Exception as err:
        why = next((line for line in str(err).splitlines() if line.strip()), type(err).__name__)[:200]
        raise DataError(
            f"{folder} holds a tokenizer that transformers cannot read: {why}", "save it again: save_pretrained(DIR)"
        ) from err


def json_of(path: Path) -> dict[str, Any]:
    """What a JSON file of a folder holds; empty if there is no such file. Raises DataError for one that cannot be read."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        why = getattr(err, "strerror", None) or " ".join(str(err).split())
        raise DataError(f"{path} cannot be read: {why}", "restore the file") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} does not hold an object", "restore the file")
    return found


def _ends(
    folder: Path, outer: Any, known: Collection[str], asked: Sequence[str] | None, said: list[str]
) -> list[int]:
    """The experiment's ends, or those of the tokenizer and of generation_config together."""
    if asked:
        said.append(f"answers end with {', '.join(asked)}, as the experiment says")
        return [_id(outer, name, "eos") for name in asked]
    named = json_of(folder / "tokenizer_config.json")
    for key in ("eos_token", "bos_token", "pad_token"):
        token = named.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token not in known:
            raise DataError(
                f"{folder / 'tokenizer_config.json'} names the {key} '{token}', which tokenizer.json does not have",
                "correct the name in that file",
            )
    own = outer.eos_token_id is not None and outer.eos_token in known  # a class may name one that the folder lacks
    found: list[int] = [int(outer.eos_token_id)] if own else []
    sources = (["tokenizer_config.json"] if "eos_token" in named else ["transformers' class"]) if found else []
    for name in ("generation_config.json", "config.json"):
        listed = json_of(folder / name).get("eos_token_id")
        more = [i for i in (listed if isinstance(listed, list) else [listed]) if type(i) is int and 0 <= i < len(outer)]
        if more and (name == "generation_config.json" or not found):
            found += [i for i in more if i not in found]
            sources.append(name)
    if found:
        said.append(f"answers end with {_shown(outer, found)}, by {' and '.join(sources)}")
    return found


def _id(outer: Any, name: str, key: str) -> int:
    vocabulary = outer.get_vocab()
    if name not in vocabulary:
        raise DataError(
            f"tokenizer.{key}: '{name}' is not in the vocabulary{nearest(name, outer.all_special_tokens)}",
            f"name one of its tokens, e.g. {', '.join(outer.all_special_tokens[:5]) or 'one of tokenizer.json'}",
        )
    return int(vocabulary[name])


def _prefix(outer: Any) -> list[int]:
    """What the tokenizer itself puts before a text."""
    with_all, alone = (outer("a", add_special_tokens=flag)["input_ids"] for flag in (True, False))
    at = next((i for i in range(len(with_all)) if with_all[i : i + len(alone)] == alone), 0)
    return [int(i) for i in with_all[:at]]


def _find_template(found: Pretrained, folder: Path, asked: str | None) -> None:
    if asked is not None:
        found.template, found.source = asked, "the experiment's chat_template"
    else:
        template, jinja = found.outer.chat_template, (folder / "chat_template.jinja").is_file()
        if isinstance(template, dict):
            found.for_tools = template.get("tool_use", "")
            name = "default" if "default" in template else next(iter(template), "")
            template = template.get(name, "")
            if name != "default":
                found.decided.append(f"of the folder's chat templates, '{name}' is used, as none is called default")
        if not template and jinja:
            template = template_text(str(folder / "chat_template.jinja"))
        found.template = template or ""
        found.source = str(folder / ("chat_template.jinja" if jinja else "tokenizer_config.json"))
    if found.template:
        found.decided.append(f"conversations are rendered by {found.source}")


def _compare(plain: Any, inner: Any, said: list[str]) -> None:
    """Say so if transformers reads the folder in another way than tokenizer.json alone."""
    for text in NASTY:
        if plain.encode(text, add_special_tokens=False).ids != inner.encode(text, add_special_tokens=False).ids:
            said.append(
                f"transformers' class for this folder and tokenizer.json alone disagree, e.g. on {text!r}; the class decides"
            )
            return


def check_model(folder: Path, inner: Any, model: Path) -> None:
    """Refuse the tokenizer of a folder for a model whose own tokenizer gives an id to another token. Raises ExperimentError."""
    if not (model / "tokenizer.json").is_file() or model.samefile(folder):
        return
    theirs = type(inner).from_file(str(model / "tokenizer.json"))
    for token, i in sorted(inner.get_vocab(with_added_tokens=True).items(), key=lambda pair: pair[1]):
        other = theirs.id_to_token(i)
        if other is not None and other != token:
            raise ExperimentError(
                f"the tokenizer in {folder} is not that of the model in {model}: token {i} is {token!r} in one and "
                f"{other!r} in the other",
                "use the tokenizer that belongs to the model",
            )


def _shown(outer: Any, ids: Sequence[int]) -> str:
    return ", ".join(map(str, outer.convert_ids_to_tokens(list(ids))))


def template_text(path: str) -> str:
    """The template in a file. Raises ExperimentError if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ExperimentError(
            f"the chat template {path} cannot be read: {getattr(err, 'strerror', None) or err}", "name a Jinja file"
        ) from None
