"""From a path in a data name to the files behind it: a file, a pattern, or a folder with its splits."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hookline.contract.format import Format
from hookline.errors import DataError, PluginError, nearest, shorten
from hookline.files import formats
from hookline.registry.offers import Offer
from hookline.storage.paths import beside

__all__ = ["Found", "Place", "find"]

MOST_FILES = 10_000
"""The maximum number of files of a folder or a pattern."""
DEEPEST = 4
"""How far below a folder files are looked for."""
PATTERN = "*?["
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
    "eval": ("eval", "evaluation"),
    "heldout": ("heldout",),
}
"""A split → the words by which names of files and folders tell it."""
SHARD = re.compile(r"-\d+-of-\d+$")
PART = re.compile(r"(?P<split>[^\[\]]*)(?:\[(?P<start>\d*%?):(?P<stop>\d*%?)\])?$")


@dataclass(frozen=True)
class Place:
    """One file, or one folder that is a single table, with the format that reads it."""

    name: str
    """As messages name it."""
    path: Path
    reader: Format


@dataclass(frozen=True)
class Found:
    """What is behind a path."""

    places: tuple[Place, ...]
    start: str = ""
    stop: str = ""
    """The part of all rows that is asked for: a number of rows or a percentage; empty: from the first, to the last."""
    chosen: str = ""
    """The split that was chosen where none was asked for."""
    others: tuple[str, ...] = ()
    """The other splits of the folder."""

    @property
    def note(self) -> str:
        """What the user should know about a choice that nobody made."""
        if not self.chosen or not self.others:
            return ""
        return f"reading the split '{self.chosen}'; there is also {', '.join(map(repr, filter(None, self.others)))}"

    def part(self, total: int) -> range:
        """The rows that are asked for, of all rows."""

        def row(bound: str, default: int) -> int:
            share = bound.endswith("%")
            number = int(bound.rstrip("%")) if bound else default
            return min(total, round(total * number / 100) if share and bound else number)

        return range(row(self.start, 0), row(self.stop, total))


def find(
    name: str, loose: tuple[Offer, ...] = (), folder: str = "", split: str | None = None, subset: str | None = None
) -> Found:
    """The files behind a path. Raises DataError where there are none, or several choices.

    folder: the folder at which a relative path begins; empty: the one the process is in.
    """
    asked = PART.match(split or "")
    if asked is None:
        raise DataError(f"{name}: the split '{shorten(split or '')}' cannot be read", "write `train` or `train[:1000]`")
    reader, file = None, name
    if not os.path.exists(beside(name, folder)):
        with _naming(name):
            reader, file = formats.format_and_file(name, loose)
    path = Path(beside(file, folder))
    bounds = asked["start"] or "", asked["stop"] or ""
    if _is_pattern(path):
        return Found(tuple(_matching(name, path, reader, loose)), *bounds)
    if subset is not None and not os.path.isdir(path):
        raise DataError(f"{name} is not a folder, so it has no subset '{shorten(subset)}'", "leave `subset` out")
    if os.path.isdir(path):
        inner = path if subset is None else _below(name, path, subset)
        places, chosen, others = _folder(name, inner, reader, loose, asked["split"])
        return Found(tuple(places), *bounds, "" if asked["split"] else chosen, others)
    if asked["split"]:
        raise DataError(
            f"{name} is one file, which has no split '{asked['split']}'", "name a folder, or leave `split` out"
        )
    regular(name, path, folder)
    return Found((Place(name, path, reader or _reader(path, name, loose)),), *bounds)


def regular(name: str, path: Path, folder: str = "") -> None:
    """Raise DataError unless a path is a file with content."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no data file {path}", _absent(name, path, folder)) from None
    except (OSError, ValueError) as err:
        why = getattr(err, "strerror", None) or err
        raise DataError(f"{shorten(name)} cannot be read: {why}", "check the path and its permissions") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{name} is not a regular file", "name a file")
    if not found.st_size:
        raise DataError(f"{name}: 0 usable rows: the file is empty", "give it at least one row")


def _absent(name: str, path: Path, folder: str) -> str:
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not path.suffix and not os.path.exists(path.parent):
        return f"nothing is downloaded: hf download {name} --repo-type dataset --local-dir DIR, then give DIR"
    near = nearest(path.name, os.listdir(path.parent)) if os.path.isdir(path.parent) else ""
    begins = f"; relative paths begin at {folder}" if folder and not os.path.isabs(name) else ""
    return near.lstrip("; ") or f"give a path, or builtin:NAME/SPLIT (hookline plugins list){begins}"


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Add the data name to the message of a PluginError about a format."""
    try:
        yield
    except PluginError as err:
        err.message = f"{shorten(name, 300)}: {err.message}"
        raise


def _reader(path: Path, name: str, loose: tuple[Offer, ...]) -> Format:
    with _naming(name):
        return formats.by_suffix(path, name, loose)


# -- patterns and folders


def _is_pattern(path: Path) -> bool:
    return any(mark in str(path) for mark in PATTERN) and not os.path.exists(path)


def _matching(name: str, path: Path, reader: Format | None, loose: tuple[Offer, ...]) -> Iterator[Place]:
    fixed = next(parent for parent in path.parents if not any(mark in str(parent) for mark in PATTERN))
    found = sorted(fixed.glob(str(path.relative_to(fixed)))) if fixed.is_dir() else []
    files = [one for one in found if one.is_file() and not one.name.startswith(".")]
    if not files:
        raise DataError(f"{name}: no file has such a name", f"{fixed} holds {_listed(fixed)}")
    _few(name, len(files))
    for file in files:
        shown = os.path.relpath(file) if not os.path.isabs(name) else str(file)
        regular(shown, file)
        yield Place(shown, file, reader or _reader(file, shown, loose))


def _below(name: str, path: Path, subset: str) -> Path:
    inner = path / subset
    if not inner.is_dir():
        folders = sorted(one.name for one in path.iterdir() if one.is_dir())
        raise DataError(
            f"{name} has no subset '{shorten(subset)}'{nearest(subset, folders)}",
            f"its folders: {', '.join(folders[:20])}" if folders else "it has no folders; leave `subset` out",
        )
    return inner


def _folder(
    name: str, path: Path, reader: Format | None, loose: tuple[Offer, ...], split: str
) -> tuple[list[Place], str, tuple[str, ...]]:
    """The files of a folder that belong to a split, that split, and the others."""
    table = formats.by_marks(path, loose)
    if table and not split:
        return [Place(name, path, reader or table)], "", ()
    splits: dict[str, list[Place]] = {}
    for file, own in _files(name, path, loose):
        within = file.relative_to(path)
        splits.setdefault(split_of(within), []).append(Place(f"{name.rstrip('/')}/{within}", file, reader or own))
    if not splits:
        raise DataError(f"{name}: the folder has no data file", f"it holds {_listed(path)}")
    chosen = _asked(name, split, list(splits)) if split else _usual(name, list(splits))
    kinds = sorted({place.reader.instance for place in splits[chosen]})
    if len(kinds) > 1:
        raise DataError(
            f"{name} has files of {len(kinds)} formats: {', '.join(kinds)}",
            f"name those of one, e.g. {name.rstrip('/')}/*.jsonl",
        )
    for place in splits[chosen]:
        if not place.path.is_dir():
            regular(place.name, place.path)
    return splits[chosen], chosen, tuple(one for one in splits if one != chosen)


def _files(name: str, path: Path, loose: tuple[Offer, ...]) -> Iterator[tuple[Path, Format]]:
    """The data files of a folder, and the folders in it that are one table each, by name, with the formats that read them."""
    seen = 0
    for at, folders, files in os.walk(path):
        here = Path(at)
        within: list[str] = []
        for folder in sorted(folders):
            if folder.startswith(".") or os.path.exists(here / folder / "run.json"):  # a run's own files are not data
                continue
            table = formats.by_marks(here / folder, loose)
            if table:
                yield here / folder, table
            else:
                within.append(folder)
        folders[:] = within if len(here.relative_to(path).parts) < DEEPEST else []
        for file in sorted(files):
            seen += 1
            _few(name, seen)
            if file not in METADATA and not file.startswith("."):
                try:
                    own = formats.by_suffix(here / file, file, loose)
                except (DataError, PluginError):
                    continue  # a file that no format reads is not data
                yield here / file, own


def split_of(file: Path) -> str:
    """The split that a file's name, or a folder's around it, tells; empty if none does."""
    for text in (SHARD.sub("", file.name.partition(".")[0]), *reversed(file.parent.parts)):
        words = re.split(r"[-_ ]", text.lower())
        if words[0] in _WORDS and len(words) > 1 and not words[1].isdecimal():
            return text  # train_prefs
        found = next((_WORDS[word] for word in words if word in _WORDS), None)
        if found:
            return found
    return ""


_WORDS = {word: split for split, words in SPLITS.items() for word in words}


def _asked(name: str, split: str, splits: Sequence[str]) -> str:
    same = next((one for one in (split, _WORDS.get(split.lower(), split)) if one in splits), None)
    if same is None:
        raise DataError(
            f"{name}: there is no split '{shorten(split)}'{nearest(split, [one for one in splits if one])}",
            f"splits: {', '.join(one for one in splits if one)}" if any(splits) else "its files do not tell any split",
        )
    return same


def _usual(name: str, splits: Sequence[str]) -> str:
    """The split that training reads where none is asked for."""
    if len(splits) == 1:
        return splits[0]
    training = [one for one in splits if one.startswith("train")] if "" not in splits else []
    if "train" in training or len(training) == 1:
        return "train" if "train" in training else training[0]
    shown = ", ".join(repr(one) if one else "files of no split" for one in splits)
    which = f"{name}?split={next(filter(None, splits))}"
    raise DataError(
        f"{name} has the splits {shown}", f"say which: {which}{', or name a pattern' if '' in splits else ''}"
    )


def _few(name: str, count: int) -> None:
    if count > MOST_FILES:
        raise DataError(f"{name}: more than {MOST_FILES} files", "put the rows into fewer files, or name a pattern")


def _listed(path: Path) -> str:
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return "nothing that can be read"
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
