from __future__ import annotations

from pathlib import Path

import pytest

from shapes import build


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four model folders, each of another shape."""
    root = tmp_path_factory.mktemp("chat")
    for name in ("qwen2", "llama3", "gemma3", "phi3"):
        build(name, root / name)
    return root
