"""Names of data: `builtin:NAME/SPLIT?option=value`, `task:NAME/SPLIT`, or a file, `FILE` or `FORMAT:FILE`."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, replace

from hookline.errors import DataError, nearest, shorten

__all__ = ["is_task", "options_of", "other_split", "parts"]

OPTIONS = ("split", "subset", "shape")
"""What a file's name may have after `?`."""


@dataclass(frozen=True)
class TaskName:
    """`builtin:walks/train?seed=1002` in parts."""

    prefix: str
    task: str
    split: str
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        asked = "&".join(f"{key}={value}" for key, value in self.options)
        return f"{self.prefix}:{self.task}/{self.split}{'?' if asked else ''}{asked}"


def parts(name: str) -> TaskName:
    place, _, asked = name.partition("?")
    prefix, _, rest = place.partition(":")
    task, _, split = rest.partition("/")
    options = [item.partition("=") for item in asked.split("&") if item]
    return TaskName(prefix, task, split or "train", tuple((key, value) for key, _, value in options))


def options_of(name: str) -> tuple[str, dict[str, str]]:
    """`rows?split=test` as the path and its options. Raises DataError for an option that files do not have."""
    path, mark, asked = name.partition("?")
    if not mark or not re.match(r"\w+=", asked):  # `?` in a pattern
        return name, {}
    found = {key: value for key, _, value in (item.partition("=") for item in asked.split("&"))}
    unknown = next((key for key in found if key not in OPTIONS), None)
    if unknown is not None and ":" in path:  # perhaps a task under another name
        return name, {}
    if unknown is not None:
        raise DataError(
            f"{shorten(name)}: files have no option '{shorten(unknown)}'{nearest(unknown, OPTIONS)}",
            "columns, filters and mixtures stand in the experiment's section `data`",
        )
    return path, found


def is_task(name: str) -> bool:
    return name.startswith(("builtin:", "task:"))


def other_split(name: str, word: str, named: Container[str] = ()) -> str:
    """Resolve a split such as `heldout` for `builtin:keywords` to `builtin:keywords/heldout`, and for `mine` of the section
    `data` to `mine/heldout`; whole data names are unchanged."""
    if is_task(word) or "/" in word or "." in word or word in named:
        return word
    head = name.partition("/")[0]
    if head in named:
        return f"{head}/{word}"
    return str(replace(parts(name), split=word)) if is_task(name) else word
