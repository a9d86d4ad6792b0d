"""docs/experiments.md does what it shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hookline.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("warm_workers")
def test_the_page_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [experiment] = blocks("yaml")
    Path("small.yaml").write_text(experiment)
    [command] = blocks("sh")
    assert main(command.split()[1:]) == 0
    assert "seed 2" in capsys.readouterr().out
    about_answers, code = blocks("python")
    done: dict[str, Any] = {}
    exec(code, done)
    exec(about_answers, done)
    assert done["again"]["equal"]
    assert done["found"].keys() == {"evaluation", "figure", "value", "low", "high", "rows"}
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in Path("my-model").iterdir()}
    names = {path.name for path in Path("runs/small").iterdir()}
    tree = PAGE[PAGE.index("## A run directory") :].split("```")[1]
    shown = set(re.findall(r"\w+\.(?:jsonl|json|html)\b", tree)) - {"journal.jsonl"}
    assert shown <= names, shown - names


def test_every_exit_code_is_listed() -> None:
    from hookline import errors

    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and "exit_code" in vars(kind):
            assert f"{kind.exit_code} " in PAGE[PAGE.index("## Exit codes") :]


def test_the_rounds_that_are_shown_are_those_of_the_example() -> None:
    [(name, shown)] = re.findall(r"^```yaml (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    phases = yaml.safe_load(shown.replace(", …", ""))["phases"]
    example = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["phases"]
    assert [item.get("repeat") for item in phases] == [item.get("repeat") for item in example]
    pairs = [*zip(phases[:1], example[:1]), *zip(phases[1]["phases"], example[1]["phases"])]
    for some, whole in pairs:
        assert some.items() <= whole.items(), some
