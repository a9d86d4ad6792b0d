"""The learning rate that an experiment leaves out: by what is trained, in the run's own file, kept by a resume, shown with its reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline.plan import rates as rates_module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder that counts as a large one."""
    run = hookline.run(experiment(build=True), out=tmp_path / "made")
    monkeypatch.setattr(rates_module, "SMALL", 1)
    return run.directory / "phases" / "one" / "model"


def experiment(build: bool = False, path: Path | None = None, method: str = "sft", **update: Any) -> dict[str, Any]:
    phase: dict[str, Any] = {"name": "one", "steps": 2, "update": {"use": method, **update}}
    phase["rollout"] = {"use": "dataset", "path": "task:keywords/sentences", "rows": 4}
    if method == "ppo":
        phase["rollout"] = {"use": "generate", "prompts": "task:keywords/train", "rows": 2, "max_new_tokens": 4}
        phase |= {"reward": ["length"], "advantage": "gae"}
    if method == "bradley-terry":
        phase["rollout"] = {"use": "preferences", "path": "pairs.jsonl"}
        phase["model"] = {"head": "reward"}
    made: dict[str, Any] = {"name": "rates", "phases": [phase], "trackers": []}
    made["model"] = (
        {"build": "gpt2", "layers": 1, "width": 16, "heads": 2, "context": 64} if build else {"path": str(path)}
    )
    return made | ({"tokenizer": {"train": "bpe", "on": "task:keywords/sentences", "vocabulary": 300}} if build else {})


def options(plan: Any) -> tuple[float, str, float]:
    config = plan.phases[-1].update.config
    return config.lr, config.schedule, config.warmup


def test_a_model_that_is_built_here_learns_as_ever() -> None:
    plan = hookline.explain(experiment(build=True))
    assert options(plan) == (1e-3, "constant", 0)
    assert plan.phases[0].rates == "lr 0.001: all weights of a model that is built here"
    assert plan.experiment.resolved()["phases"][0]["update"]["options"] == {}


@pytest.mark.parametrize(("method", "lr"), [("sft", 2e-5), ("causal-lm", 5e-5), ("ppo", 1e-6)])
def test_a_given_model_takes_the_usual_rate_of_the_method(method: str, lr: float, folder: Path) -> None:
    plan = hookline.explain(experiment(path=folder, method=method))
    assert options(plan) == (lr, "linear", 0.1)
    assert plan.phases[0].rates == f"lr {lr:g}, linear, warmup 0.1: all weights of the folder {folder}"
    adapted = experiment(path=folder, method=method)
    adapted["model"]["adapter"] = {"lora": {"rank": 2}}
    assert options(hookline.explain(adapted))[0] == pytest.approx(10 * lr, rel=1e-12)


def test_a_critic_of_a_given_model_learns_faster_unless_a_rate_is_written(folder: Path) -> None:
    def critic(**update: Any) -> float:
        config: Any = hookline.explain(experiment(path=folder, method="ppo", **update)).phases[0].update.config  # type: ignore[union-attr]
        return float(config.lr_of("critic"))

    assert critic() == 1e-5
    assert critic(lr=3e-6) == 3e-6
    assert critic(critic_lr=2e-4) == 2e-4
    assert critic(critic="shared") == 1e-6


def test_what_is_written_wins(folder: Path) -> None:
    plan = hookline.explain(experiment(path=folder, lr=0.1, schedule="constant", warmup=3))
    assert options(plan) == (0.1, "constant", 3)
    assert plan.phases[0].rates.endswith(": as written")


def test_a_toy_of_a_folder_learns_as_if_it_were_built_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "SMALL", 20_000_000)
    plan = hookline.explain(experiment(path=folder))
    assert options(plan) == (1e-3, "constant", 0)
    assert re.search(r"trained as if it were built here: it has [1-9]\d* thousand parameters", plan.phases[0].rates)


def test_a_size_is_said_in_its_own_order_of_magnitude() -> None:
    said = [rates_module._many(n) for n in (512, 1_000, 84_321, 999_999, 1_000_000, 12_345_678)]
    assert said == ["512", "1 thousand", "84 thousand", "1.0 million", "1.0 million", "12.3 million"]


def test_a_run_writes_its_rate_and_a_resume_keeps_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = experiment(path=folder)
    run = hookline.run(given, out=tmp_path / "run")
    written = json.loads((run.directory / "experiment.json").read_text())["phases"][0]["update"]["options"]
    assert written == {"lr": 2e-5, "schedule": "linear", "warmup": 0.1}
    monkeypatch.setattr(rates_module, "SMALL", 20_000_000)  # another release decides otherwise
    again = hookline.run(given, out=tmp_path / "run")
    assert again.experiment["phases"][0]["update"]["options"] == written
    with pytest.raises(hookline.HooklineError, match=r"update.options.lr was 2e-05, is 0.1"):
        hookline.run(given, ["phases.one.update.lr=0.1"], out=tmp_path / "run")


def test_a_run_of_before_these_rates_goes_on_with_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(rates_module, "SMALL", 20_000_000)
        run = hookline.run(experiment(path=folder), out=tmp_path / "run")
    assert hookline.run(experiment(path=folder), out=run.directory).experiment["phases"][0]["update"]["options"] == {}


@pytest.mark.parametrize("value", [1.5, -1])
def test_warm_up_is_steps_or_a_share(value: float) -> None:
    with pytest.raises(hookline.HooklineError, match="warmup"):
        hookline.explain(experiment(build=True, warmup=value))


def test_a_share_of_warm_up_is_one_of_the_optimiser_steps() -> None:
    from hookline.training.optim import learning_rate

    config = hookline.UpdateConfig(warmup=0.1, schedule="linear")
    assert [learning_rate(config, at, at, 40) for at in (0, 3, 4, 22)] == [0.25, 1.0, 1.0, 0.5]
