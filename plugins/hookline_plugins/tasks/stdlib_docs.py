"""Real text available on every machine: the docstrings of Python's standard library, parsed with `ast` and never imported."""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hookline import Record, Task

SKIP = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}


class StdlibDocs(Task):
    """Rows of `text`, one per distinct docstring; about a twentieth, chosen by hash, is `heldout`."""

    splits = ("train", "heldout")

    def rows(self, split: str) -> Sequence[Record]:
        return [
            {"text": text, "module": module} for module, text in docstrings() if held_out(text) == (split == "heldout")
        ]


def held_out(text: str, share: float = 0.05) -> bool:
    """Whether a text is held out. The result depends only on the text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big") < share * 2**32


@cache
def docstrings() -> tuple[tuple[str, str], ...]:
    """(module, docstring), each text once, in a fixed order."""
    seen: dict[str, str] = {}
    for module, text in _walk(Path(sysconfig.get_paths()["stdlib"])):
        seen.setdefault(text, module)
    return tuple((module, text) for text, module in seen.items())


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root)
        if SKIP & set(where.parts):
            continue
        try:
            tree: Any = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and text.strip():
                    yield where.as_posix(), text.strip()
