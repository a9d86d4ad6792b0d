"""Numbers that are none, and runs with nothing to learn (NU1 to NU19): named, and no weight is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from badinput_lab import Lab, refused

HASHED = """
import json, math, torch
from hookline import Component, MicroBatch, Term, UpdateConfig, Batch, hookimpl

def note(ctx):
    with open("hashes.jsonl", "a") as file:
        file.write(json.dumps([ctx.step, ctx.role_named("policy").hash()]) + "\\n")
"""


def hashes(lab: Lab) -> list[tuple[int, str]]:
    return [tuple(json.loads(line)) for line in (lab.folder / "hashes.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_NU_a_reward_that_is_no_number_names_row_and_plugin(lab: Lab, value: str) -> None:
    source = (
        HASHED
        + f"""
class Odd(Component):
    name = "odd"
    @hookimpl
    def hookline_reward(self, ctx, rollout):
        note(ctx)
        value = torch.arange(len(rollout)).float()
        if ctx.step == 1:
            value[2] = float("{value}")
        return value
"""
    )
    said = lab.plugin_run(source, lab.rl("odd"))
    refused(
        said, 6, "reward 'odd' (mine.py", f"gave {value} to sample 6", "the weights are as before this step", "ok_B"
    )
    rows = [json.loads(line) for line in (lab.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1]
    (step0, before), (step1, after) = hashes(lab)
    assert (step0, step1) == (0, 1)
    assert before != after  # step 0 did train; what it left is what the checkpoint holds
    from hookline.storage import trees

    saved = trees.load_tree(lab.checkpoints()[-1], "role-policy")
    assert trees.hash_tensors(saved["tensors"]) == after


def test_NU_rows_without_an_answer_are_left_out_and_counted(lab: Lab) -> None:
    source = (
        HASHED
        + """
class Odd(Component):
    name = "odd"
    @hookimpl
    def hookline_reward(self, rollout):
        value = torch.arange(len(rollout)).float()
        value[2] = math.nan
        return Term(value, torch.arange(len(rollout)) != 2)
"""
    )
    said = lab.plugin_run(source, lab.rl("odd", steps=1))
    assert said.code == 0, said.err
    [row] = [json.loads(line) for line in (lab.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert row["metrics"]["unjudged"] == 1
    assert row["metrics"]["rows"] == 3


LOSS = (
    HASHED
    + """
class Odd(Component):
    name = "odd"
    takes = Batch
    off_policy = True
    class Config(UpdateConfig):
        pass
    @hookimpl
    def hookline_update(self, ctx, batch):
        note(ctx)
        def loss(mb):
            logprobs_BT = mb.stats().logprobs_BT
            good = mb.token_mean(-logprobs_BT)
            if ctx.step < 2:
                return good
            WHAT
        try:
            ctx.train(batch, loss)
        finally:
            note(ctx)
"""
)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("return mb.token_mean(logprobs_BT * math.nan)", ["the loss is nan: first in sample"]),
        ("return good * math.inf", ["the loss is inf"]),
        (
            "x_B = logprobs_BT.sum(1); x_B = torch.where(mb.batch.sample_B == 9, x_B / 0, x_B); return mb.row_mean(x_B)",
            ["the loss is -inf: first in sample 9 ('"],
        ),
        (
            "zero = logprobs_BT - logprobs_BT.detach(); return mb.token_mean(zero.abs().sqrt())",
            ["the gradient of policy/", "is not finite"],
        ),
    ],
    ids=["nan", "inf", "row", "gradient"],
)  # fmt: skip
def test_NU1_and_NU2_a_loss_or_gradient_that_is_no_number_leaves_every_bit(
    lab: Lab, what: str, words: list[str]
) -> None:
    made = lab.sft(4)
    made["phases"][0]["update"] = "odd"
    said = lab.plugin_run(LOSS.replace("WHAT", what), made)
    refused(said, 6, "update 'odd' (mine.py", *words, "the weights are as before this step")
    seen = [value for _, value in hashes(lab)]
    assert seen[-1] == seen[-2]  # the failing step changed nothing, bit for bit
    assert len(set(seen)) == 3
    again = lab.run(None, "-p", "./mine.py")
    assert again.sentence == said.sentence  # the same input, the same message
    assert [value for _, value in hashes(lab)][-1] == seen[-1]


def test_NU1_mended_it_goes_on_as_if_nothing_had_been(lab: Lab) -> None:
    made = lab.sft(4)
    made["phases"][0]["update"] = "odd"
    lab.plugin_run(LOSS.replace("WHAT", "return good * math.nan"), made)
    said = lab.plugin_run(LOSS.replace("WHAT", "return good"), made)
    assert said.code == 0, said.err
    assert "not bit-identical" in said.err
    mended = lab.weights()
    said = lab.hookline("run", "tiny.yaml", "--out", "fresh", "-p", "./mine.py")
    assert said.code == 0, said.err
    assert (lab.folder / "fresh/phases/sft/model/model.safetensors").read_bytes() == mended


@pytest.mark.parametrize("patience", [1, 3])
def test_NU5_equal_rewards_for_patience_steps_are_no_signal(lab: Lab, patience: int) -> None:
    source = (
        HASHED
        + """
class Flat(Component):
    name = "flat"
    @hookimpl
    def hookline_reward(self, rollout):
        return torch.full((len(rollout),), 0.5)
"""
    )
    said = lab.plugin_run(source, lab.rl("flat", steps=9, patience=patience, wrap=["kl-penalty"]))
    refused(said, 6, f"no learning signal: in {patience} steps of phase 'rl' every reward was 0.5", "patience")
    rows = [json.loads(line) for line in (lab.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == patience - 1
    assert all(row["metrics"]["equal_groups"] == 1 for row in rows)
    said = lab.run(None, "-p", "./mine.py")  # the count survives the restart
    refused(said, 6, f"in {patience} steps")


def test_NU5_a_difference_now_and_then_is_a_signal(lab: Lab) -> None:
    source = (
        HASHED
        + """
class Rare(Component):
    name = "rare"
    @hookimpl
    def hookline_reward(self, ctx, rollout):
        return torch.arange(len(rollout)).float() * (ctx.step % 2)
"""
    )
    said = lab.plugin_run(source, lab.rl("rare", steps=6, patience=2))
    assert said.code == 0, said.err


@pytest.mark.parametrize(("value", "weight"), [(1e30, 1e30), (-3e38, 10.0), (3e38, 3.0)])
def test_NU8_a_sum_of_rewards_beyond_floats_is_refused(lab: Lab, value: float, weight: float) -> None:
    source = (
        HASHED
        + f"""
class Big(Component):
    name = "big"
    @hookimpl
    def hookline_reward(self, rollout):
        return torch.arange(1, 1 + len(rollout)).float() / len(rollout) * {value}
"""
    )
    said = lab.plugin_run(source, lab.rl([{"use": "big", "weight": weight}]))
    refused(said, 6, f"the sum of rewards, {weight:g} × big: reward_BT is", "inf in sample")
    assert not lab.checkpoints()


def test_NU8_tiny_and_large_rewards_train(lab: Lab) -> None:
    source = (
        HASHED
        + """
class Wide(Component):
    name = "wide"
    @hookimpl
    def hookline_reward(self, rollout):
        return torch.tensor([1e-40, 2.0**60, -(2.0**60), 5e-324]).float()[: len(rollout)]
"""
    )
    assert lab.plugin_run(source, lab.rl("wide", steps=2, wrap="whiten")).code in (0, 6)


@pytest.mark.parametrize("new", [1, 2])
def test_NU16_the_shortest_answers_are_defined(lab: Lab, new: int) -> None:
    source = "from hookline import Component, hookimpl\nclass First(Component):\n    name = 'first'\n    @hookimpl\n"
    source += "    def hookline_reward(self, rollout):\n        return rollout.token_ids_BT[:, 0].float()\n"
    made = lab.rl("first", steps=1, patience=9)
    lab.rows("pairs.jsonl", [{"prompt": "open"}, {"prompt": "close"}])
    made["phases"][0]["rollout"]["max_new_tokens"] = new
    said = lab.plugin_run(source, made)
    assert said.code == 0, said.err
    said = lab.run(made, "-p", "./mine.py", "phases.rl.rollout.max_new_tokens=0")
    refused(said, 2, "max_new_tokens is 0; it must be at least 1", problems=1)


def test_NU19_a_figure_that_is_nan_stays_visible(lab: Lab) -> None:
    source = (
        HASHED
        + """
from hookline import Metric
class Sees(Component):
    name = "sees"
    metrics = (Metric("odd", "a figure that is no number"),)
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        ctx.log("odd", math.nan if ctx.step else 1.0)
        return (yield)
"""
    )
    made = lab.sft(2)
    made["phases"][0]["wrap"] = "sees"
    assert lab.plugin_run(source, made).code == 0
    rows: list[Any] = [json.loads(line) for line in (lab.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["metrics"]["odd"] == 1.0
    assert rows[1]["metrics"]["odd"] is None, "JSON has no NaN"


def test_NU_an_advantage_that_is_no_number_is_blamed_on_who_said_it(lab: Lab) -> None:
    source = (
        HASHED
        + """
class Odd(Component):
    name = "odd"
    @hookimpl(wrapper=True)
    def hookline_advantage(self, scored):
        result = yield
        return scored.advantaged(result.advantage_BT / 0, **result.extra)
"""
    )
    said = lab.plugin_run(source, lab.rl(wrap="odd"))
    refused(said, 6, "wrapper 'odd' (mine.py", "advantage_BT", "in sample")
