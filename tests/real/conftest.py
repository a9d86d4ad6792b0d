from __future__ import annotations

from pathlib import Path

import pytest

from shapes import SHAPES, build


@pytest.fixture(scope="session")
def shelf_of_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model folder per shape."""
    root = tmp_path_factory.mktemp("shapes")
    for name in SHAPES:
        build(name, root / name)
    return root
