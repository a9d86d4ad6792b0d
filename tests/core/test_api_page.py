"""docs/api.md and docs/components.md: every public name is there, has a sentence, and stands as the source says it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def make_api() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_api"] = module
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_on_the_page_once(make_api: ModuleType) -> None:
    shown = [name for section in make_api.SECTIONS for name in section.names]
    public = {name for package in make_api.PACKAGES for name in make_api.public(package)}
    assert not public - set(shown), "add them to a section of docs/make_api.py"
    assert len(shown) == len(set(shown))
    assert {name for name in shown if ":" not in name} == public


def test_every_public_member_has_a_sentence_and_every_tensor_a_shape(make_api: ModuleType) -> None:
    assert not make_api.missing()


def test_a_member_without_a_sentence_or_a_shape_is_found(
    make_api: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment behind a field counts as its sentence; nothing, a word, or a tensor of unknown shape does not."""
    (tmp_path / "made.py").write_text(
        "class Made:\n"
        '    """A class."""\n\n'
        "    told: Tensor  # Of each token, [B, T].\n"
        "    bare: int\n"
        "    shapeless: Tensor\n"
        '    """Some numbers."""\n\n'
        "    def __init__(self):\n"
        "        self.kept = 1\n\n"
        "    def silent(self): ...\n\n"
        "    def _own(self): ...\n"
    )
    monkeypatch.setattr(make_api, "CORE", tmp_path)
    one = make_api.entry("made", "Made")
    assert [member.name for member in one.members] == ["told", "bare", "shapeless", "kept", "silent"]
    said = {m.name: list(make_api.problems(m.text, m.type, m.name)) for m in one.members}
    assert said == {
        "told": [],
        "bare": ["no docstring"],
        "shapeless": ["a tensor without its shape"],
        "kept": ["no docstring"],
        "silent": ["no docstring"],
    }


@pytest.mark.parametrize("name", ["api.md", "components.md"])
def test_a_page_is_up_to_date_and_its_links_lead_somewhere(make_api: ModuleType, name: str) -> None:
    made = make_api.PAGES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made, "run `make docs`"
    text = re.sub(r"^```.*?^```$", "", made, flags=re.MULTILINE | re.DOTALL)
    anchors = github_anchors(text)
    assert len(anchors) > 60
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        assert not path or (ROOT / "docs" / path).exists(), target
        known = anchors if not path else github_anchors((ROOT / "docs" / path).read_text(encoding="utf-8"))
        assert not anchor or anchor in known, target
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1, table


def github_anchors(text: str) -> set[str]:
    """The anchors of a page's headings: lower case, punctuation left out, a number behind a heading that is there already."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)
