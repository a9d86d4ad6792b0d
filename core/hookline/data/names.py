"""Names of data: `builtin:NAME/SPLIT?option=value`, `task:NAME/SPLIT`, or a file, `FILE` or `FORMAT:FILE`."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["is_task", "other_split", "parts"]


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


def is_task(name: str) -> bool:
    return name.startswith(("builtin:", "task:"))


def other_split(name: str, word: str) -> str:
    """Resolve a split such as `heldout` for `builtin:keywords` to `builtin:keywords/heldout`; whole data names are
    unchanged."""
    if is_task(word) or "/" in word or "." in word or not is_task(name):
        return word
    return str(replace(parts(name), split=word))
