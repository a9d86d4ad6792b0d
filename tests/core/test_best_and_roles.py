"""What a phase keeps as its best, and the roles that `explain` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline.cli.show import explain_json, explain_text
from hookline.loop.api import plan

FIGURES = """
import math
from hookline import Component, Metric, hookimpl
class Valley(Component):
    name = "valley"
    metrics = (Metric("depth", "3, 1, 2, none"),)
    @hookimpl(wrapper=True)
    def hookline_rollout(self, ctx):
        rollout = yield
        ctx.log("depth", [3.0, 1.0, 2.0, math.nan][ctx.step])
        return rollout
"""


def experiment(corpus: Path, tmp_path: Path, **phase: Any) -> dict[str, Any]:
    (tmp_path / "valley.py").write_text(FIGURES)
    return {
        "name": "best",
        "tokenizer": {"train": "bpe", "on": str(corpus / "texts.jsonl"), "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 32},
        "trackers": [],
        "plugins": [str(tmp_path / "valley.py")],
        "phases": [
            {
                "name": "sft", "steps": 4, "wrap": "valley", "update": "sft",
                "rollout": {"use": "dataset", "path": str(corpus / "prompts.jsonl"), "rows": 4}, **phase,
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("best", "step", "value"),
    [("depth", 1, 3.0), ({"figure": "depth"}, 1, 3.0), ({"figure": "depth", "lowest": True}, 2, 1.0)],
)
def test_the_best_is_the_highest_or_the_lowest(
    corpus: Path, tmp_path: Path, best: Any, step: int, value: float
) -> None:
    run = hookline.run(experiment(corpus, tmp_path, save={"best": best}), out=tmp_path / "run")
    kept = json.loads((run.directory / "best/sft/manifest.json").read_text())
    assert (kept["step"], kept["depth"]) == (step, value)


def test_a_figure_that_never_was_a_number_is_told(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Declared, but never logged: everybody else's work is kept all the same."""
    run = hookline.run(experiment(corpus, tmp_path, save={"best": "unjudged"}), out=tmp_path / "run")
    assert run.finished("sft")
    assert not (run.directory / "best").exists()
    assert "save.best: 'unjudged' was never a number in phase 'sft', so nothing was kept" in capfd.readouterr().err


def test_explain_names_the_roles_that_components_make(corpus: Path, tmp_path: Path) -> None:
    made = experiment(
        corpus, tmp_path, wrap="kl-penalty", reward="length", advantage="reward-to-go", update="ppo",
        rollout={"use": "generate", "prompts": str(corpus / "prompts.jsonl"), "rows": 2, "max_new_tokens": 4},
        evaluate=[{"prompts": str(corpus / "prompts.jsonl"), "reward": "kl"}],
    )  # fmt: skip
    planned = plan(made)
    assert "  reference: made for kl-penalty, kl" in explain_text(planned).splitlines()
    assert explain_json(planned)["phases"][0]["roles"] == ["reference: made for kl-penalty, kl"]
