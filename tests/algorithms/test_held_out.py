"""Held-out figures of methods that learn from rows: an evaluation without rewards gives the method's own."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import ExperimentError, PluginError

N = 12
Write = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pairs, answers with a label, and rankings of three, on the same prompts; answers differ in length."""
    rows = [
        {"prompt": f"word {i} ", "chosen": f"good{i % 7} end" + "!" * (i % 3), "rejected": f"bad{i % 5}"}
        for i in range(N)
    ]
    labels = [
        {"prompt": r["prompt"], "completion": r["chosen" if i % 2 else "rejected"], "label": bool(i % 2)}
        for i, r in enumerate(rows)
    ]
    for name, lines in (
        ("pairs", rows),
        ("labels", labels),
        ("other", [{**r, "prompt": f"x{r['prompt']}"} for r in rows]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def experiment(data: Path, update: dict[str, Any], **phase: Any) -> dict[str, Any]:
    reads = "labels" if update["use"] == "kto" else "pairs"
    rollout = {"use": "preferences", "path": str(data / "pairs.jsonl"), "rows": N}
    if update["use"] in ("sft", "causal-lm", "kto"):
        rollout = {"use": "dataset", "path": str(data / "labels.jsonl"), "rows": N}
        rollout |= {"label": "label"} if reads == "labels" else {}
    return {
        "name": "held", "seed": 1, "threads": 1, "trackers": [],
        "tokenizer": {"train": "bpe", "on": str(data / "labels.jsonl"), "vocabulary": 270},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 48},
        "phases": [{
            "name": "learn", "rollout": rollout, "update": {"lr": 1e-2, **update}, "steps": 2,
            "evaluate": [{"every": 1, "rollout": rollout, "rows": 2 * N}], **phase,
        }],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("update", "same"),
    [
        ({"use": "dpo"}, ("accuracy", "margin", "chosen_gain")),
        ({"use": "dpo", "loss": "ipo", "length": "mean", "micro_tokens": 64}, ("accuracy", "margin")),
        ({"use": "dpo", "loss": "plackett-luce"}, ("accuracy", "margin")),
        ({"use": "simpo"}, ("accuracy", "margin")),
        ({"use": "orpo"}, ("accuracy", "margin", "nll")),
        ({"use": "bradley-terry"}, ("accuracy", "margin")),
        ({"use": "kto"}, ("good_gain", "bad_gain")),
        ({"use": "sft", "micro_tokens": 64}, ()),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_the_loss_is_that_of_training_on_the_same_rows(
    data: Path, tmp_path: Path, update: dict[str, Any], same: tuple[str, ...]
) -> None:
    more = {"model": {"head": "reward"}} if update["use"] == "bradley-terry" else {}
    run = hookline.run(experiment(data, update, **more), out=tmp_path / "run")
    rows = run.rows()
    for before, after in itertools.pairwise(rows):
        if update["use"] == "kto" and before["step"]:
            break  # from then on, the baseline depends on which prompts are mismatched with which answers
        for name in ("loss", *same):
            held, trained = before["metrics"][f"eval/{name}"], after["metrics"][name]
            assert held == pytest.approx(trained, rel=2e-5, abs=2e-6), (name, before["step"])
    if update["use"] == "sft":
        last = rows[-1]["metrics"]
        assert last["eval/perplexity"] == pytest.approx(math.exp(last["eval/loss"]), rel=1e-5)
        assert 0 <= last["eval/token_accuracy"] <= 1
    metric = run.metric("learn", "eval/loss")
    assert metric is not None
    assert metric.formula
    for found in hookline.evaluate(run):
        assert found["value"] == rows[-1]["metrics"][f"eval/{found['figure']}"]
        assert found["low"] <= found["value"] + 1e-9
        assert found["value"] <= found["high"] + 1e-9


def test_an_evaluation_changes_nothing_of_the_training(data: Path, tmp_path: Path) -> None:
    for use in ("dpo", "kto"):
        with_it = hookline.run(experiment(data, {"use": use}), out=tmp_path / use / "with")
        without = hookline.run(experiment(data, {"use": use}, evaluate=[]), out=tmp_path / use / "without")
        losses = [[row["metrics"]["loss"] for row in run.rows() if row["step"]] for run in (with_it, without)]
        assert losses[0] == losses[1]


def test_a_reference_is_the_model_that_the_phase_began_with_also_when_it_is_evaluated_later(
    data: Path, tmp_path: Path
) -> None:
    hookline.run(experiment(data, {"use": "sft"}), out=tmp_path / "base")
    hookline.export(tmp_path / "base", tmp_path / "model")
    spec = experiment(data, {"use": "dpo"}) | {"model": {"path": str(tmp_path / "model")}}
    spec.pop("tokenizer")
    run = hookline.run(spec, out=tmp_path / "run")
    again = {found["figure"]: found["value"] for found in hookline.evaluate(run)}
    assert again["margin"] == run.rows()[-1]["metrics"]["eval/margin"] != 0


def test_the_best_weights_can_be_kept_by_such_a_figure_and_a_misspelt_one_is_named(data: Path, tmp_path: Path) -> None:
    hookline.run(experiment(data, {"use": "simpo"}, save={"best": "eval/accuracy"}), out=tmp_path / "run")
    assert (tmp_path / "run/best/learn/model").is_dir()
    with pytest.raises(ExperimentError, match="did you mean 'eval/accuracy'"):
        hookline.explain(experiment(data, {"use": "simpo"}, save={"best": "eval/acuracy"}))


def test_pair_accuracy_points_a_policy_to_its_own_figures(data: Path) -> None:
    spec = experiment(data, {"use": "dpo"})
    spec["phases"][0]["evaluate"][0]["reward"] = "pair-accuracy"
    with pytest.raises(
        ExperimentError, match="leave out `reward` in this evaluation, which then gives the figures of 'dpo'"
    ):
        hookline.explain(spec)


def test_answers_that_nobody_compared_have_no_such_figure(data: Path, tmp_path: Path) -> None:
    drawn = {"use": "generate", "prompts": str(data / "pairs.jsonl"), "rows": 2, "max_new_tokens": 2}
    run = hookline.run(
        experiment(data, {"use": "dpo"}, evaluate=[{"rollout": drawn, "rows": 2}], steps=1), out=tmp_path / "run"
    )
    assert not [name for name in run.rows()[-1]["metrics"] if name.startswith("eval/")]
    assert [len(entry["samples"]) for entry in run.evaluations()] == [2, 2]


THEIRS = """
from hookline import Batch

class Theirs(Component):
    name = "theirs"
    takes = Batch
    off_policy = True
    metrics = (Metric("far", "mean of the squared log-prob", better="lower"),)

    class Config(UpdateConfig):
        pass

    def loss(self, mb):
        logprobs_BT = mb.stats(support="whole").logprobs_BT
        mb.log("far", mb.token_mean(logprobs_BT.square()))
        return mb.token_mean(-logprobs_BT) + mb.row_mean(logprobs_BT.sum(1).square()) * 0.5

    @hookimpl
    def hookline_update(self, ctx, batch):
        ctx.train(batch, self.loss)

    def held_out(self, ctx, batch):
        return {RETURNS}
"""


def test_a_third_partys_update_has_them_too(data: Path, tmp_path: Path, plugin: Write) -> None:
    spec = experiment(data, {"use": "sft"})
    spec["phases"][0]["update"] = {"use": "theirs", "lr": 1e-3, "micro_tokens": 64}
    path = plugin(THEIRS.replace("{RETURNS}", "ctx.measure(batch, self.loss)"), "theirs")
    first, second, _ = hookline.run(spec, out=tmp_path / "run", plugins=[path]).rows()
    for name in ("loss", "far"):  # the loss adds means over tokens and over rows
        assert first["metrics"][f"eval/{name}"] == pytest.approx(second["metrics"][name], rel=2e-5)
    wrong = plugin(THEIRS.replace("{RETURNS}", '{"fat": Term(torch.ones(len(batch)))}'), "theirs")
    with pytest.raises(PluginError, match="gives 'fat', which 'theirs' does not declare; did you mean 'far'"):
        hookline.run(spec, out=tmp_path / "wrong", plugins=[wrong])


def test_the_report_and_compare_have_them(data: Path, tmp_path: Path) -> None:
    spec = experiment(data, {"use": "dpo"}) | {"trackers": ["report"]}
    for seed in (1, 2):
        hookline.run({**spec, "seed": seed}, out=tmp_path / f"seed={seed}")
    [phase] = json.loads((tmp_path / "seed=1/report.json").read_text())["phases"]
    figures = phase["evaluations"][0]["figures"]
    assert list(figures)[:3] == ["loss", "accuracy", "margin"]
    assert figures["margin"]["change"]["low"] is not None
    found = hookline.compare([tmp_path / "seed=1", tmp_path / "seed=2"], metric="eval/margin")
    assert found["metric"] == "eval/margin"
