"""What a hook is lent stays as it was: tensors, records and weights are compared, and trackers get copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import PluginError

Tiny = Callable[..., dict[str, Any]]
Write = Callable[..., str]

REWARD = """
    class Mine(Component):
        @hookimpl
        def hookline_reward(self, ctx, rollout):
            {change}
            return (rollout.token_ids_BT * rollout.mask_BT).float().sum(1)
"""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("rollout.token_ids_BT.numpy()[:, 0] = 7", "'token_ids_BT'"),
        ("rollout.token_ids_BT.data.mul_(2)", "'token_ids_BT'"),
        ("rollout.behaviour.logprobs_BT.data[0, 0] = 0", "'behaviour.logprobs_BT'"),
        ("rollout.mask_BT.numpy()[0, 0] = False", "'mask_BT'"),
        ("rollout.records[0]['seen'] = True", "the dict of a row in 'records'"),
        ("rollout.records[1]['keywords'].append('x')", "the dict of a row in 'records'"),
        ("next(iter(ctx.role_named('policy').trainable().values())).data.add_(1)", "the weights of 'policy'"),
        ("torch.nn.init.normal_(next(iter(ctx.role_named('policy').trainable().values())))", "the weights of 'policy'"),
    ],
)
def test_a_reward_that_changes_what_it_was_lent_is_named(
    change: str, what: str, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    described = tiny(reward="mine")
    with pytest.raises(PluginError) as caught:
        hookline.run(described, plugins=[plugin(REWARD.replace("{change}", change))], out=tmp_path / "run")
    assert f"changed {what} in place during hookline_reward" in str(caught.value)
    assert "reward 'mine' (mine.py" in str(caught.value)


@pytest.mark.parametrize("hook", ["advantage", "update", "score", "rollout"])
def test_so_is_any_other_hook(hook: str, plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin("""
    class Advantage(Component):
        name = "advantage"
        @hookimpl
        def hookline_advantage(self, scored):
            scored.reward_BT.numpy()[0, 0] += 1
            return scored.advantaged(scored.reward_BT)

    class Update(Component):
        name = "update"
        Config = UpdateConfig
        @hookimpl
        def hookline_update(self, ctx, batch):
            batch.records[0]["used"] = True
            ctx.train(batch, lambda mb: mb.token_mean(-mb.stats().logprobs_BT * mb.batch.advantage_BT))

    class Score(Component):
        name = "score"
        @hookimpl(wrapper=True)
        def hookline_score(self, rollout):
            scored = yield
            scored.reward_BT.data += 1
            return scored

    class Rolls(Component):
        name = "rollout"
        @hookimpl(wrapper=True)
        def hookline_rollout(self, ctx):
            rollout = yield
            rollout.records[0].clear()
            return rollout
    """)
    parts = {hook: hook} if hook in ("advantage", "update") else {"wrap": hook}
    with pytest.raises(PluginError, match=rf"'{hook}' \(mine.py .*changed .* in place during hookline_{hook}"):
        hookline.run(tiny(reward="tokens", **parts), plugins=[path], out=tmp_path / "run")


def test_a_change_of_records_that_nobody_saw_reaches_no_other_step(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    """After the first steps contents are no longer compared; then each step still begins with the rows of the file."""
    change = "assert not any('seen' in record for record in rollout.records), 'kept'\n"
    change += "            if ctx.step >= 3: [record.update(seen=1) for record in rollout.records]"
    described = tiny(reward="mine", steps=16)  # two epochs
    run = hookline.run(described, plugins=[plugin(REWARD.replace("{change}", change))], out=tmp_path / "run")
    assert len(run.rows()) == 16


def test_a_tracker_changes_neither_rows_nor_samples_for_the_next_one(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin("""
    SEEN = []

    class First(Component):
        name = "first"
        @hookimpl
        def hookline_row(self, row):
            row["metrics"].clear()
        @hookimpl
        def hookline_samples(self, samples):
            samples[0].clear()

    class Second(Component):
        name = "second"
        @hookimpl
        def hookline_row(self, run, row):
            assert row["metrics"] and row == run.rows()[-1]
        @hookimpl
        def hookline_samples(self, samples):
            assert samples[0]["response"]
    """)
    evaluate = [{"every": 1, "prompts": tiny()["phases"][0]["rollout"]["prompts"], "rows": 2, "reward": ["length"]}]
    described = {**tiny(reward="tokens", evaluate=evaluate), "trackers": ["first", "second"]}
    notices = hookline.run(described, plugins=[path], out=tmp_path / "run").notices
    assert not [notice for notice in notices if "in the training data" not in notice]
