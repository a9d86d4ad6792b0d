"""docs/models.md: every causal model type of the installed transformers is on it, and is still what the page says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import transformers

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "make_models.py"


@pytest.fixture(scope="module")
def models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_models"] = module
    spec.loader.exec_module(module)
    return module


def verdicts(lines: str) -> dict[str, str]:
    """Type → right, refused or not built, from rows of the page."""
    return dict(re.findall(r"^\| ([\w.-]+(?:, is_decoder: true)?) \| \w* \| ([a-z ]+) \|", lines, re.MULTILINE))


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_page_has_every_type_of_this_transformers_and_none_is_wrong(models: ModuleType, page: str) -> None:
    if f"transformers {transformers.__version__}" not in page:
        pytest.skip("the page is of another transformers; make models")
    said = verdicts(page)
    assert [kind for kind in said if models.DECODER not in kind] == list(models.TYPES)
    assert set(said.values()) == {"right", "refused", "not built"}
    assert list(said.values()).count("right") > 100


@pytest.mark.parametrize(
    "kind", ["gpt2", "qwen3_next", "mamba", "bart", "bert", "xlm", "bert, is_decoder: true", "gemma2"]
)
def test_a_type_is_still_what_the_page_says(models: ModuleType, page: str, kind: str) -> None:
    row = models.check(kind)
    assert row.verdict == verdicts(page)[kind], row
    assert f"| {kind} | {row.network} | " in page
    if row.verdict == "right":
        how = f"| {row.decodes} | {'states' if row.fused else 'logits'} |"
        line = next(line for line in page.splitlines() if line.startswith(f"| {kind} | "))
        assert how in line
        assert (line.split("|")[9].strip() == "padded") == (row.packed is None)


def test_a_network_that_decodes_otherwise_than_it_reads_is_called_wrong_or_refused(
    models: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = models.Role.step
    monkeypatch.setattr(models.Role, "step", lambda role, state, ids_B: real(role, state, ids_B * 0))
    row = models.check("gpt2")
    assert row.verdict == "refused"
    assert "differ from the role's own forward pass" in row.said
    monkeypatch.undo()
    monkeypatch.setattr(models, "forward", lambda *given: {"logprobs": 2 * models.__dict__["real"](*given)["logprobs"]})
    models.real = importlib.import_module("hookline.training.statistics").forward
    assert models.check("gpt2").verdict == "wrong"


@pytest.mark.slow(150)
def test_every_type_is_still_what_the_page_says(models: ModuleType, page: str) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *models.kinds()], capture_output=True, text=True, check=False, timeout=3600
    )
    assert done.returncode == 0, done.stderr
    assert verdicts(done.stdout) == verdicts(page)
