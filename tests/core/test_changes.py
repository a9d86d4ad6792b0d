"""The files in changes/: named as towncrier reads them, a sentence each, and gathered into the next section."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (ROOT / "changes").iterdir() if path.name != "README.md")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_change_is_named_by_its_type_and_holds_sentences(path: Path) -> None:
    assert re.fullmatch(r"\+[a-z0-9-]+\.(added|changed|fixed|removed)\.md", path.name)
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"[A-Z`][^\n].*[.:`]\n", text, re.DOTALL), "sentences, without a bullet"


def test_changes_are_gathered_above_the_last_version(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "changes").mkdir()
    shutil.copy(ROOT / "changes" / "README.md", tmp_path / "changes")
    (tmp_path / "changes" / "+padding.fixed.md").write_text("`gae` no longer reads padding.\n")
    (tmp_path / "changes" / "+page.added.md").write_text("A page.\n")
    command = [sys.executable, "-m", "towncrier", "build", "--yes", "--version", "9.9.9", "--date", "2030-01-02"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    new, _, old = page.partition("### The first version")
    assert new.endswith(
        "## 9.9.9 (2030-01-02)\n\n### Added\n\n- A page.\n\n### Fixed\n\n- `gae` no longer reads padding.\n\n\n"
    )
    assert old == (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("### The first version")[2]
    assert [path.name for path in (tmp_path / "changes").iterdir()] == ["README.md"]
