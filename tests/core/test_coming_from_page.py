"""docs/coming-from.md: its experiments are planned, and its words lead from theirs to ours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import hookline
from hookline.cli import main
from hookline.config.experiment import Experiment, ModelSpec, Phase
from hookline.contract.fields import UpdateConfig
from hookline.synonyms import suggestion
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.ppo import PPO
from hookline_plugins.models.lora import LoRA
from hookline_plugins.rollouts.generate import Generate
from hookline_plugins.wrappers.kl_penalty import KLPenalty
from shapes import build

PAGE = (Path(__file__).resolve().parents[2] / "docs/coming-from.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
REWARDS = """
def correct(completions, answer, **columns):
    return [float(right in str(said)) for said, right in zip(completions, answer)]

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(ground_truth in solution_str)

def reward_func(queries, prompts, labels):
    return {"rewards": [0.0 for _ in queries]}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coming")
    build("qwen2", folder / "my-model")
    ask, said = {"role": "user", "content": "open"}, {"role": "assistant", "content": "a file"}
    rows: dict[str, Any] = {
        "chat": {"messages": [ask, said]},
        "pairs": {"prompt": [ask], "chosen": [said], "rejected": [{**said, "content": "no"}]},
        "labels": {"prompt": [ask], "completion": [said], "label": True},
        "prompts": {"prompt": [ask], "answer": "file", "data_source": "mine", "label": "file"},
    }
    for name, row in rows.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "rewards.py").write_text(REWARDS)
    return folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda text: str(yaml.safe_load(text)["name"]))
def test_a_recipe_is_an_experiment(recipe: str, desk: Path) -> None:
    file = desk / "recipe.yaml"
    file.write_text(recipe.replace("max_new_tokens: 256", "max_new_tokens: 32"))  # the context of the small model
    plan = hookline.explain(file)
    assert plan.phases[0].update


def test_the_configuration_that_is_shown_becomes_what_is_shown(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [(name, config)] = re.findall(r"^```yaml (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [commands] = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [shown] = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(desk)
    Path(name).write_text(config)
    asked = json.loads(Path("prompts.jsonl").read_text())
    rows = [{**asked, "prompt": [{"role": "user", "content": f"open {i}"}]} for i in range(8)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in commands.splitlines():
        assert main(command.split()[1:]) == 0, capsys.readouterr().err
    lines = Path("mine.yaml").read_text().splitlines()
    assert [line for line in shown.splitlines() if line not in lines] == []
    assert main(["init", "other.yaml", "--from", name]) == 2
    assert "the model 'Qwen/Qwen2.5-0.5B-Instruct', which is not here" in capsys.readouterr().err


OPTIONS = {
    "update": {*PPO.Config.model_fields, *GRPO.Config.model_fields},
    "rollout": {*Generate.Config.model_fields},
    "model": {*ModelSpec.model_fields},
    "wrap": {*KLPenalty.Config.model_fields},
    "adapter": {*LoRA.Config.model_fields},
    "reward": {*Phase.model_fields},
    "trackers": {*Experiment.model_fields},
}
TABLE = [
    row.split(" | ")
    for row in re.findall(r"^\| (`.*)\|$", PAGE.partition("## Words")[2].partition("## TRL")[0], re.MULTILINE)
]


def names(cell: str) -> list[str]:
    return [word.rpartition(".")[2] for word in re.findall(r"`([\w.]+)`", cell)]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_a_word_of_theirs_leads_to_ours(row: list[str]) -> None:
    """Single words; a cell with a product or a quotient says how to compute ours."""
    place = row[0].strip("`").partition(".")[0].partition(":")[0]
    if place not in OPTIONS:  # an option of the command line
        return
    inner = (
        re.findall(r"rank|alpha|modules", row[0])
        if place == "adapter"
        else ["beta"]
        if place == "wrap"
        else names(row[0].split(" (")[0])
    )
    assert set(inner) <= OPTIONS[place] | {place}
    for cell in row[1:]:
        if not {"×", "÷", "path", "n"} & set(re.split(r"[ `.]", cell)):
            for word in names(cell):
                assert any(f"'{ours}'" in suggestion(word, OPTIONS[place]) for ours in inner), word


def test_the_page_names_options_of_updates_that_exist() -> None:
    assert {"lr", "grad_clip", "epochs", "minibatches", "micro_tokens"} <= UpdateConfig.model_fields.keys()
