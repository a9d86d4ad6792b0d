"""What strangers ran into: each is a sentence now, or a note, and not a wrong figure or a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from hookline import DataError, PluginError
from hookline.loop.api import plan, run

WALKS = Path(__file__).resolve().parents[2] / "examples/exact/walks.yaml"


def test_an_override_that_drops_the_files_options_says_so() -> None:
    [note] = plan(WALKS, ["phases.rl.update=grpo"]).notes
    assert note == (
        "phases.rl.update=grpo drops lr, set in the file for 'rloo', because it replaces the whole entry; "
        "phases.rl.update.use=grpo keeps the options"
    )
    assert plan(WALKS, ["phases.rl.update.use=grpo"]).notes == ()


def test_the_tabular_models_task_is_looked_for_by_explain() -> None:
    with pytest.raises(PluginError, match="no task 'hookline:nosuch' is installed"):
        plan(WALKS, ["model.task=builtin:nosuch"])
    with pytest.raises(DataError, match="'walks' has no option 'nodes'"):
        plan(WALKS, ["model.task=builtin:walks?nodes=5"])


def test_a_task_that_does_not_know_the_prompt_says_so(tmp_path: Path) -> None:
    reward = "phases.rl.reward={use: task, task: builtin:arms}"
    with pytest.raises(DataError, match=r"task 'arms' has no prompt 'n\d+', so it cannot judge.*name one task"):
        run(WALKS, ["phases.rl.steps=1", "trackers=[]", reward], out=tmp_path / "run")


def test_a_component_that_takes_no_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(
        "from hookline import Component, hookimpl\n\nclass Bare(Component):\n    def __init__(self): ...\n"
        "    @hookimpl\n    def hookline_reward(self, rollout): ...\n"
    )
    with pytest.raises(PluginError, match=r"'bare' .* its __init__ does not take the config alone"):
        plan(WALKS, ["phases.rl.reward=bare"], [str(tmp_path / "bare.py")])
