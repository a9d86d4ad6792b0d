"""A phase in which no optimiser step learned anything is not a success, and the sentence says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import HooklineError, NumbersError, PluginError, ServiceError

Tiny = Callable[..., dict[str, Any]]
Write = Callable[..., str]

PARTS = """
    from dataclasses import replace

    class Mine(Component):
        @hookimpl(wrapper=True)
        def hookline_rollout(self, ctx):
            r = yield
            return {rollout}

    class Zero(Component):
        @hookimpl
        def hookline_advantage(self, scored):
            return scored.advantaged(torch.zeros_like(scored.reward_BT))

    class Equal(Component):
        @hookimpl
        def hookline_reward(self, rollout):
            return torch.ones(len(rollout))

    class Odd(Component):
        @hookimpl
        def hookline_reward(self, rollout):
            return torch.full((len(rollout),), 0.1)

    class ByPrompt(Component):
        @hookimpl
        def hookline_reward(self, rollout):
            return rollout.group_B.float()

    class Bare(Component):
        @hookimpl
        def hookline_update(self, ctx, batch):
            return None

    class Nobody(Component):
        @hookimpl
        def hookline_judge(self, scored):
            return []

    class Idle(Component):
        Config = UpdateConfig

        @hookimpl
        def hookline_update(self, ctx, batch):
            return None

    class Silent(Component):
        @hookimpl
        async def hookline_reward(self, ctx, rollout):
            async def ask(row):
                raise {error}
            return await ctx.each(rollout, ask, timeout=0.05)
"""


def parts(plugin: Write, rollout: str = "r", error: str = "ConnectionError('port 8000 is closed')") -> str:
    return plugin(PARTS.replace("{rollout}", rollout).replace("{error}", error), "mine")


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: changes of the phase, what the wrapper returns, sentence
    "no rows": ({"wrap": "mine"}, "r.rows([])", "no row reached the update → check the rollout"),
    "no chosen token": (
        {"wrap": "mine", "reward": "length"},
        "replace(r, mask_BT=torch.zeros_like(r.mask_BT))",
        "mask_BT was false for every token",
    ),
    "no training": ({"update": "idle"}, "r", "'idle' took no optimiser step → call ctx.train"),
    "no advantage": ({"advantage": "zero"}, "r", "every gradient of 'vanilla' was 0 → check what 'vanilla' multiplies"),
    "equal rewards": ({"reward": "equal"}, "r", "every reward was equal → check the reward"),
    "equal groups": (
        {"advantage": None, "update": "grpo", "reward": "by-prompt"},
        "r",
        "'grpo' was 0, and the rewards of each prompt's answers were equal",
    ),
    "equal groups left out": (
        {"advantage": None, "update": "dapo", "reward": "by-prompt"},
        "r",
        "because the rewards of each prompt's answers were equal → check the reward",
    ),
    "equal rewards left out": (
        {"advantage": None, "update": "dapo", "reward": "equal"},
        "r",
        "because every reward was equal → check the reward",
    ),
    "groups of one": (
        {"advantage": None, "update": "grpo", "wrap": "mine"},
        "replace(r, group_B=r.sample_B.clone())",
        "no group had two rows, and 'grpo' compares the answers to one prompt",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_reason_is_named_at_the_phases_end(
    case: str, steps: int, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    changes, rollout, sentence = CASES[case]
    path = parts(plugin, rollout)
    described = tiny(**{"reward": "tokens", "steps": steps, **changes})
    with pytest.raises(NumbersError, match="nothing was learned in") as caught:
        hookline.run(described, plugins=[path], out=tmp_path / "run")
    assert sentence in str(caught.value)
    assert f"{'the only step' if steps == 1 else '3 steps'} of phase 'rl'" in str(caught.value)
    assert len(hookline.Run.read(tmp_path / "run").rows()) == steps, "the rows stay"
    assert not (tmp_path / "run/phases/rl").exists()
    with pytest.raises(NumbersError, match="nothing was learned in"):  # the same command ends in the same way
        hookline.run(described, plugins=[path], out=tmp_path / "run")


def test_patience_ends_such_a_phase_early(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    described = tiny(reward="tokens", update="idle", steps=50, patience=4, save={"every": 1})
    with pytest.raises(NumbersError, match="nothing was learned in 4 steps of phase 'rl'"):
        hookline.run(described, plugins=[parts(plugin)], out=tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("ConnectionError('port 8000 is closed')", "'silent': ConnectionError: port 8000 is closed"),
        ("TimeoutError", "'silent': no answer within 0.05 s"),
    ],
)
def test_a_service_that_never_answers_is_the_reason(
    error: str, why: str, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    described = tiny(reward="silent", steps=3, save={"every": 1})
    with pytest.raises(ServiceError) as caught:
        hookline.run(described, plugins=[parts(plugin, error=error)], out=tmp_path / "run")
    assert caught.value.exit_code == 7
    assert f"because no row was judged; the first failure is of {why} → check the service" in str(caught.value)
    with pytest.raises(ServiceError, match="the first failure is of 'silent'"):  # read from the save
        hookline.run(described, plugins=[parts(plugin, error=error)], out=tmp_path / "run")


def test_one_step_that_learns_is_enough_and_is_remembered(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    rollout = "r if ctx.step == 0 else r.rows([])"
    described = tiny(reward="tokens", wrap="mine", steps=4, patience=2, save={"every": 1})
    run = hookline.run(described, plugins=[parts(plugin, rollout)], out=tmp_path / "run")
    assert [row["metrics"]["rows"] for row in run.rows()] == [8, 0, 0, 0]
    run.close()
    stops = "(_ for _ in ()).throw(RuntimeError('power cut')) if ctx.step == 3 and not (ctx.run.directory / 'go').exists() else "
    path = parts(plugin, stops + rollout)
    with pytest.raises(PluginError, match="power cut"):
        hookline.run(described, plugins=[path], out=tmp_path / "cut")
    (tmp_path / "cut/go").touch()
    assert len(hookline.run(described, plugins=[path], out=tmp_path / "cut").rows()) == 4


def test_a_group_holds_answers_to_one_prompt(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = parts(plugin, "replace(r, group_B=r.group_B // 4)")
    described = tiny(reward="tokens", advantage=None, update="grpo", wrap="mine")
    with pytest.raises(HooklineError, match=r"put samples 0 and 2 into one group, but their prompts differ") as caught:
        hookline.run(described, plugins=[path], out=tmp_path / "run")
    assert caught.value.exit_code == 5
    assert hookline.run(tiny(reward="tokens", wrap="mine"), plugins=[path], out=tmp_path / "fine").rows()


@pytest.mark.parametrize("answers", [3, 7])
def test_rewards_are_equal_whatever_their_mean_rounds_to(
    answers: int, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    described = tiny(reward="odd", advantage=None, update="grpo", steps=1)
    described["phases"][0]["rollout"].update(rows=2, samples_per_prompt=answers)
    with pytest.raises(NumbersError, match="every reward was equal"):
        hookline.run(described, plugins=[parts(plugin)], out=tmp_path / "run")


@pytest.mark.parametrize("patience", [2, 20])
def test_a_phase_that_collects_needs_its_service_too(patience: int, plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    described = tiny(reward="silent", advantage=None, update=None, feedback="nobody", steps=3, patience=patience)
    with pytest.raises(ServiceError, match="first failure is of 'silent': ConnectionError: port 8000") as caught:
        hookline.run(described, plugins=[parts(plugin)], out=tmp_path / "run")
    assert f"nothing was collected in {min(patience, 3)} steps of phase 'rl'" in str(caught.value)


def test_an_update_without_a_learning_rate_is_told(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    run = hookline.run(tiny(reward="tokens", update="bare"), plugins=[parts(plugin)], out=tmp_path / "run")
    assert run.notices == ("phase 'rl' took no optimiser step, because 'bare' has no learning rate",)
