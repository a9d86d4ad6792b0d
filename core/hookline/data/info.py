"""dataset_info.json of LLaMA-Factory: names of data files, with their columns and speakers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hookline.errors import DataError, nearest, shorten

__all__ = ["entries_of", "entry_of"]

FILE = "dataset_info.json"
COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
"""Formatting → what a column is called here, where it has another name than in the file."""
SPEAKERS = {
    "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool", "function_tag": "assistant",
    "system_tag": "system",
}  # fmt: skip


def entries_of(path: Path) -> Mapping[str, Any]:
    """The entries of a dataset_info.json, or of that in a folder; none for anything else."""
    file = path if path.name == FILE else path / FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {
        name: entry
        for name, entry in entries
        if isinstance(entry, dict) and {"file_name", "hf_hub_url", "ms_hub_url", "script_url"} & entry.keys()
    }


def entry_of(name: str, path: Path, entries: Mapping[str, Any], subset: str | None) -> tuple[Path, dict[str, Any]]:
    """The file of one of the entries of a path, and how it is read, in the words of the section `data`."""
    if subset is None and len(entries) > 1:
        raise DataError(f"{name} describes {', '.join(entries)}", f"say which: {name}?subset={next(iter(entries))}")
    chosen = subset if subset is not None else next(iter(entries))
    if chosen not in entries:
        raise DataError(
            f"{name} has no entry '{shorten(chosen)}'{nearest(chosen, entries)}", f"it has: {', '.join(entries)}"
        )
    entry = entries[chosen]
    if "file_name" not in entry:
        raise DataError(
            f"{name}: '{chosen}' is on a hub, and nothing is downloaded", "download it, and give its folder"
        )
    formatting = entry.get("formatting", "alpaca")
    tags = entry.get("tags") or {}
    names = COLUMNS.get(formatting, {})
    columns = {names.get(key, key): value for key, value in (entry.get("columns") or {}).items()}
    message = {key: tags[tag] for key, tag in (("role", "role_tag"), ("content", "content_tag")) if tag in tags}
    roles = {tags[tag]: role for tag, role in SPEAKERS.items() if tag in tags}
    file = (path if path.is_dir() else path.parent) / str(entry["file_name"])
    read = {
        "columns": {key: value for key, value in columns.items() if key != value},
        "message": message,
        "roles": roles,
        "split": entry.get("split") if file.is_dir() else None,
    }
    return file, {key: value for key, value in read.items() if value}
