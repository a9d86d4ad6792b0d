"""Environments: the adapter of a process is the process in every outcome; one with a tool is played from a loose file."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hookline import DataError, Environment, Process, ServiceError, Turn
from hookline.data.tasks import task
from hookline.testing import open_phase
from hookline_plugins.environments.process import ProcessEnvironment
from hookline_plugins.maths import pick

CALCULATOR = Path(__file__).with_name("calculator.py")


def adapter(name: str, **options: Any) -> tuple[Environment, Process]:
    """The environment of a task, and the process behind it."""
    environment = ProcessEnvironment(ProcessEnvironment.Config(task=name, **options))
    environment.setup(SimpleNamespace(task=task))  # type: ignore[arg-type]
    process = task(name).process()
    assert process is not None
    return environment, process


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


async def after(environment: Environment, prompt: str, actions: list[str]) -> list[Turn]:
    turns = [await environment.reset({"prompt": prompt}, seeded(0))]
    for action in actions:
        turns.append(await environment.step(action))
    return turns


def test_on_cliff_every_action_in_every_state_is_answered_as_the_process_answers_it() -> None:
    environment, process = adapter("builtin:cliff")
    [(_, start)] = process.starts()
    ways: dict[Any, list[str]] = {start: []}
    tried = 0
    for state in (queue := [start]):
        for action in process.actions(state):
            [(_, follows, reward)] = process.step(state, action)
            turns = asyncio.run(after(environment, process.prompt(start), [*ways[state], action]))
            assert turns[0] == Turn(text=process.prompt(start))
            assert turns[-1].text == process.shows(state, action, follows)
            assert dict(turns[-1].rewards) == {"task": reward}
            assert turns[-1].terminated is (not process.actions(follows))
            assert not turns[-1].truncated
            tried += 1
            if follows not in ways:
                ways[follows] = [*ways[state], action]
                queue.append(follows)
    assert tried == 37 * 4  # all cells but the goal and the ten of the cliff


@pytest.mark.parametrize("name", ["builtin:wordle", "builtin:wordle?notes=true", "builtin:walks"])
def test_random_play_ends_pays_and_shows_what_the_process_does_under_the_same_chances(name: str) -> None:
    environment, process = adapter(name)
    starts = list(process.starts())

    async def play(seed: int) -> tuple[int, float]:
        guesses, chances = seeded(seed), seeded(1000 + seed)
        _, state = starts[seed % len(starts)]
        prompt = process.prompt(state)
        same = [(chance, one) for chance, one in starts if process.prompt(one) == prompt]
        assert len(same) == 1  # so that reset leaves nothing to chance
        turn = await environment.reset({"prompt": prompt}, seeded(1000 + seed))
        earned, total, moves = 0.0, 0.0, 0
        while process.actions(state):
            actions = list(process.actions(state))
            action = actions[int(torch.randint(len(actions), (), generator=guesses))]
            follows = process.step(state, action)
            u = float(torch.rand((), generator=chances, dtype=torch.float64)) if len(follows) > 1 else 0.0
            _, new, reward = follows[pick(follows, u)]
            turn = await environment.step(action)
            assert turn.text == process.shows(state, action, new)
            state, earned, total, moves = new, earned + turn.reward, total + reward, moves + 1
            assert turn.over is turn.terminated is (not process.actions(state))
        assert earned == total
        return moves, earned

    played = [asyncio.run(play(seed)) for seed in range(40)]
    assert len(set(played)) > 1


@pytest.mark.parametrize("seed", [3, 4])
def test_an_episode_is_the_same_under_the_same_generator(seed: int) -> None:
    environment, _ = adapter("builtin:wordle")

    async def play() -> list[Turn]:
        first = await environment.reset({"prompt": "guess"}, seeded(seed))
        return [first, await environment.step("sun"), await environment.step("bee")]

    assert asyncio.run(play()) == asyncio.run(play())


def test_a_word_that_is_no_action_ends_the_episode_and_what_was_paid_stays() -> None:
    environment, process = adapter("builtin:cliff")
    turns = asyncio.run(after(environment, process.prompt(process.starts()[0][1]), ["up", "jump"]))
    assert [turn.reward for turn in turns] == [0.0, -1.0, 0.0]
    assert turns[-1].terminated
    environment, _ = adapter("builtin:cliff", foul=-7.0)
    assert asyncio.run(after(environment, process.prompt(process.starts()[0][1]), ["jump"]))[-1].reward == -7.0


def test_a_long_episode_is_cut_and_says_so() -> None:
    environment, process = adapter("builtin:cliff", longest=2)
    turns = asyncio.run(after(environment, process.prompt(process.starts()[0][1]), ["up", "up"]))
    assert [(turn.terminated, turn.truncated) for turn in turns] == [(False, False), (False, False), (False, True)]


def test_rows_and_tasks_that_cannot_be_played_are_refused_in_a_sentence() -> None:
    environment, _ = adapter("builtin:cliff")
    with pytest.raises(DataError, match="no prompt 'somewhere' to start from"):
        asyncio.run(environment.reset({"prompt": "somewhere"}, seeded(0)))
    with pytest.raises(DataError, match="no prompt 'None'"):
        asyncio.run(environment.reset({}, seeded(0)))
    with pytest.raises(DataError, match="builtin:keywords has no process"):
        adapter("builtin:keywords")


def test_a_turn_speaks_in_one_way() -> None:
    Turn(token_ids=())
    Turn(text="open")
    for several in ({"text": "a", "token_ids": (1,)}, {"text": "a", "messages": [{"role": "tool", "content": "a"}]}):
        with pytest.raises(ValueError, match="only one of"):
            Turn(**several)  # type: ignore[arg-type]


# -- a second environment, with a tool, from a loose file


@pytest.fixture
def loop(tmp_path: Path) -> Any:
    """A phase that plays the calculator."""
    rows = [
        {"prompt": f"sum {a} {b}", "numbers": [a, b], "text": "add sum 0 1 2 3 4 5 6"} for a in (1, 2) for b in (1, 3)
    ]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_phase(
        {
            "name": "sums",
            "seed": 3,
            "tokenizer": {"train": "words", "on": str(path), "vocabulary": 300},
            "model": {"build": "gpt2", "layers": 1, "width": 32, "heads": 2, "context": 32},
            "phases": [
                {
                    "name": "rl",
                    "steps": 2,
                    "rollout": {
                        "use": "turns",
                        "prompts": str(path),
                        "environment": "calculator",
                        "rows": 12,
                        "max_new_tokens": 1,
                    },
                    "update": {"use": "reinforce", "lr": 1e-3},
                }
            ],
            "trackers": [],
        },
        tmp_path / "run",
        plugins=[str(CALCULATOR)],
    ) as opened:
        yield opened


def module_of(loop: Any) -> Any:
    """The calculator's file, as the run has loaded it."""
    return sys.modules[type(loop.hooks.components["rollout/turns"].parts["environment"]).__module__]


def test_an_environment_with_a_tool_is_played_through_the_phase_s_own_draws(loop: Any) -> None:
    rollout = loop.hooks.rollout(loop.ctx)
    called = 0
    for row in range(len(rollout)):
        words = [loop.ctx.tokenizer.decode([token]) for token in rollout.response_ids(row)]
        chosen = rollout.mask_BT[row, : len(words)].tolist()
        paid = rollout.extra["recorded_BT"][row, : len(words)].tolist()
        numbers, total, calls = list(rollout.records[row]["numbers"]), 0, 0
        for at, (word, mine) in enumerate(zip(words, chosen)):
            if not mine:  # what the tool showed: the running total, after an `add`
                assert words[at - 1] == "add"
                total += numbers.pop(0) if numbers else 0
                assert word == str(total)
                assert paid[at] == 0
            elif word == "add":
                calls += 1
            else:  # the answer is the last word
                assert at == len(words) - 1
                right = float(word == str(sum(rollout.records[row]["numbers"])))
                assert paid[at] == pytest.approx(right - 0.1 * calls)
        assert rollout.finish_reason[row] == ("length" if words[-1] == "add" else "stop")
        called += calls
    assert called
    assert bool((rollout.behaviour.logprobs_BT[~rollout.mask_BT] == 0).all())
    stats = loop.ctx.stats(rollout).logprobs_BT
    torch.testing.assert_close(stats, rollout.behaviour.logprobs_BT, rtol=0, atol=1e-4)


def test_an_environment_s_rewards_are_learned_from_and_every_environment_of_a_row_is_closed(loop: Any) -> None:
    module = module_of(loop)
    before = list(module.OPEN)
    loop.step()
    assert before == module.OPEN
    figures, _ = loop.phase.metrics.collect()
    assert figures["optimiser_steps"] == 1
    assert "reward" in figures


def test_an_environment_with_a_bug_is_told_with_its_line_and_closed_with_the_others(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(loop)
    before = list(module.OPEN)
    monkeypatch.setattr(module.Calculator, "step", lambda self, reply: 1 / 0)
    loop.step()
    assert any("did not judge 12 of 12 episodes" in text and "ZeroDivisionError" in text for text in loop.session.run.notices)
    assert before == module.OPEN


# -- environments that fail


def failing(loop: Any, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, sums: set[int]) -> Any:
    """The calculator, which fails with an error on rows whose numbers have one of these sums."""
    module = module_of(loop)
    real = {name: getattr(module.Calculator, name) for name in ("reset", "step")}

    async def reset(self: Any, record: Any, rng: Any) -> Any:
        self.asked = sum(record["numbers"])
        if method == "reset" and self.asked in sums:
            raise error
        return await real["reset"](self, record, rng)

    async def step(self: Any, reply: str) -> Any:
        if method == "step" and self.asked in sums:
            raise error
        return await real["step"](self, reply)

    monkeypatch.setattr(module.Calculator, "reset", reset)
    monkeypatch.setattr(module.Calculator, "step", step)
    return module


@pytest.mark.parametrize("method", ["reset", "step"])
@pytest.mark.parametrize(
    "error",
    [ServiceError("it does not answer"), TimeoutError(), ConnectionError("gone")],
    ids=lambda e: type(e).__name__,
)
def test_a_row_whose_environment_fails_is_not_judged_and_the_others_are(
    loop: Any, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    module = failing(loop, monkeypatch, method, error, {3})
    before = list(module.OPEN)
    rollout = loop.hooks.rollout(loop.ctx)
    failed = [sum(record["numbers"]) == 3 for record in rollout.records]
    assert any(failed)
    assert not all(failed)
    assert rollout.extra["ok_B"].tolist() == [not one for one in failed]
    assert [int(n) for n, one in zip(rollout.mask_BT.sum(1), failed) if one] == [int(method == "step")] * sum(failed)
    loop.step()
    figures, _ = loop.phase.metrics.collect()
    assert figures["unjudged"] + figures["rows"] == 12
    assert figures["unjudged"] > 0
    assert figures["optimiser_steps"] == 1
    assert before == module.OPEN


def test_where_every_environment_fails_nothing_is_learned_and_the_run_goes_on(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(loop, monkeypatch, "reset", OSError("no sandbox"), {2, 3, 4, 5})
    before = loop.ctx.role_named("policy").hash()
    loop.step()
    figures, _ = loop.phase.metrics.collect()
    assert (figures["unjudged"], figures["rows"]) == (12, 0)
    assert loop.ctx.role_named("policy").hash() == before
