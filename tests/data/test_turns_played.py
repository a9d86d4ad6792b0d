"""Episodes of several turns: their tokens, masks and credit, counted by hand; what fails is told and left out."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_chat import GENERATES
from test_turns import STRIPS

import hookline
import ranks
from hookline import MicroBatch
from hookline.testing import open_phase
from hookline_plugins import maths
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.rollouts.played import Played

SCRIPTED = str(Path(__file__).with_name("scripted.py"))


def experiment(shelf: Path, replies: tuple[str, ...] = ("open read", "close"), **changes: Any) -> dict[str, Any]:
    """One phase that plays doors with a scripted policy; changes to `rollout`, `environment`, `template`, `update`."""
    rows = shelf / "doors.jsonl"
    rows.write_text("".join(json.dumps({"prompt": word}) + "\n" for word in ("read", "write", "list", "file")))
    environment = {"use": "doors", **changes.get("environment", {})}
    rollout = {"use": "turns", "prompts": str(rows), "environment": environment, "rows": 2, "max_new_tokens": 8}
    tokenizer = {"path": str(shelf / "qwen2")}
    if "template" in changes:
        (shelf / "own.jinja").write_text(changes["template"])
        tokenizer["chat_template"] = str(shelf / "own.jinja")
    return {
        "name": "doors",
        "seed": 3,
        "threads": 1,
        "tokenizer": tokenizer,
        "model": {"path": str(shelf / "qwen2")},
        "phases": [
            {
                "name": "rl",
                "steps": 2,
                "engine": {"use": "scripted", "replies": list(replies)},
                "rollout": {**rollout, **changes.get("rollout", {})},
                "update": changes.get("update", {"use": "reinforce", "lr": 1e-3}),
            }
        ],
        "plugins": [SCRIPTED],
        "trackers": [],
    }


@pytest.fixture
def playing(shelf: Path, tmp_path: Path) -> Any:
    """`playing(**changes)`: (the loop of the phase, its first rollout)."""
    opened = []

    def play(**changes: Any) -> Any:
        opened.append(open_phase(experiment(shelf, **changes), tmp_path / f"run{len(opened)}", plugins=[SCRIPTED]))
        loop = opened[-1].__enter__()
        return loop, loop.hooks.rollout(loop.ctx)

    yield play
    for one in reversed(opened):
        one.__exit__(None, None, None)


def module_of(loop: Any) -> Any:
    """The file of the scripted policy, as the run has loaded it."""
    return sys.modules[type(loop.hooks.components["rollout/turns"].parts["environment"]).__module__]


def written(loop: Any, rollout: Any, row: int) -> str:
    """A row as text: what the policy chose in [ ], rewards behind the token that they are on."""
    text, own = loop.ctx.tokenizer.decode(rollout.prompt_ids(row), special=True), False
    for at, token in enumerate(rollout.response_ids(row)):
        chosen, paid = bool(rollout.mask_BT[row, at]), float(rollout.extra["recorded_BT"][row, at])
        text += "[" if chosen and not own else "]" if own and not chosen else ""
        text += loop.ctx.tokenizer.decode([token], special=True) + (f"({paid:g})" if paid else "")
        own = chosen
    return text + "]" * own


def test_a_row_is_what_was_sampled_with_the_environment_between_and_each_reward_on_its_reply(playing: Any) -> None:
    loop, rollout = playing()
    word = rollout.records[0]["prompt"]
    assert written(loop, rollout, 0) == (
        f"<|im_start|>system\nYou are a helper.<|im_end|>\n<|im_start|>user\n{word}<|im_end|>\n<|im_start|>assistant\n"
        "[open read<|im_end|>(0.5)]\n<|im_start|>user\nit is open<|im_end|>\n<|im_start|>assistant\n[close<|im_end|>(0.75)]"
    )
    assert rollout.finish_reason == ("stop", "stop")
    assert rollout.episode_B.tolist() == rollout.sample_B.tolist()
    behaviour = rollout.behaviour
    assert bool((behaviour.logprobs_BT[~rollout.mask_BT] == 0).all())
    assert bool((behaviour.logprobs_BT[rollout.mask_BT] < 0).all())
    torch.testing.assert_close(loop.ctx.stats(rollout).logprobs_BT, behaviour.logprobs_BT, rtol=0, atol=1e-4)


def test_the_prompt_of_each_reply_is_the_one_before_it_and_the_sampled_ids_and_what_was_said(playing: Any) -> None:
    # " open" and "open" differ as ids; text that a template would trim stays as it was drawn
    loop, rollout = playing(replies=("  open \n", "open", "close"))
    seen = module_of(loop).SEEN[-6:]
    for row in range(2):
        prompts = [prompt for _, prompt in seen[row::2]]
        whole = rollout.prompt_ids(row) + rollout.response_ids(row)
        assert all(whole[: len(prompt)] == prompt for prompt in prompts)
        assert prompts[0] == rollout.prompt_ids(row)
        drawn = loop.ctx.tokenizer.chat.encode("  open \n<|im_end|>")[0]
        assert prompts[1][: len(prompts[0]) + len(drawn)] == prompts[0] + drawn
    assert len({sample for sample, _ in seen}) == 6


def test_a_reply_that_was_cut_is_closed_by_the_template_and_the_closing_token_is_not_learned(playing: Any) -> None:
    loop, rollout = playing(replies=("open|cut", "close"))
    assert "[open(0.5)]<|im_end|>\n<|im_start|>user\nit is open" in written(loop, rollout, 0)


def test_a_template_that_rewrites_earlier_turns_makes_a_row_of_each_reply_and_groups_count_episodes(
    playing: Any,
) -> None:
    thinks = ("<think>a file</think>open", "<think>a list</think>close")
    group = {"use": "grpo", "lr": 1e-3}
    loop, rollout = playing(
        replies=thinks, template=STRIPS, rollout={"samples_per_prompt": 2, "max_new_tokens": 32}, update=group
    )
    assert len(rollout) == 8
    assert rollout.episode_B.unique().numel() == 4
    assert rollout.group_B.unique().numel() == 2
    first, second = (written(loop, rollout, row) for row in (0, 1))
    assert first.endswith("assistant\n[<think>a file</think>open<|im_end|>(0.5)]")
    assert second.endswith(
        "assistant\nopen<|im_end|>\n<|im_start|>user\nit is open<|im_end|>\n<|im_start|>assistant\n"
        "[<think>a list</think>close<|im_end|>(0.75)]"
    )
    assert rollout.finish_reason == ("stop",) * 8
    assert sorted(rollout.sample_B.tolist()) == list(range(8))
    loop.step()
    figures, _ = loop.phase.metrics.collect()
    assert (figures["episode_rows"], figures["episode_turns"], figures["episode_return"]) == (2, 2, 1.25)


def test_an_episode_ends_before_what_does_not_fit_into_the_context_and_after_max_turns(playing: Any) -> None:
    loop, rollout = playing(replies=("open",), rollout={"max_turns": 3})
    assert rollout.finish_reason == ("length", "length")
    assert rollout.extra["recorded_BT"][0].sum() == 1.5
    assert written(loop, rollout, 0).endswith("[open<|im_end|>(0.5)]")
    room = loop.ctx.role_named("policy").context
    loop, rollout = playing(replies=("open",), rollout={"max_turns": 1000})
    assert rollout.finish_reason == ("length", "length")
    assert written(loop, rollout, 0).endswith("[open<|im_end|>(0.5)]")
    one = len(
        loop.ctx.tokenizer.chat.encode(
            "open<|im_end|>\n<|im_start|>user\nit is open<|im_end|>\n<|im_start|>assistant\n"
        )[0]
    )
    length = int(rollout.prompt_length_B[0] + rollout.length_B[0])
    assert length - 2 <= room - 8 < length - 2 + one + 2


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("hang", "did not answer within 0.5 s"), ("raise", "did not answer: KeyError: 'door' (scripted.py line"),
        ("exit", "environment 'doors' calls sys.exit"), ("bytes", "returned a bytes, not a hookline.Turn"),
        ("text", "returned a turn whose text is a bytes"), ("nan", "returned the reward 'door' = nan, which is not finite"),
        ("silent", "says nothing and is not over"), ("none", "returned nothing, not a hookline.Turn"),
        ("role", "a message that is not {role: …, content: …}"), ("word", "returned the reward 'door' as a str, not a number"),
        ("ids", "a turn has the token id 1000000000, but ids go from 0 to"),
    ],
)  # fmt: skip
def test_an_environment_that_fails_is_told_in_a_sentence_and_its_row_is_not_judged(
    playing: Any, bad: str, why: str
) -> None:
    loop, rollout = playing(environment={"bad": bad}, rollout={"time_limit": 0.5})
    assert rollout.extra["ok_B"].tolist() == [False, False]
    [said] = [text for text in loop.session.run.notices if "did not judge" in text]
    assert why in said
    assert "such rows are left out and counted" in said


def test_an_environment_that_is_over_at_once_and_a_template_that_takes_no_tools_are_told(playing: Any) -> None:
    loop, rollout = playing(environment={"bad": "over", "at": 0})
    assert not rollout.extra["ok_B"].any()
    assert "ended its episode before the policy replied" in loop.session.run.notices[-1]
    no_tools = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + GENERATES
    )
    loop, rollout = playing(environment={"role": "tool"}, template=no_tools)
    assert rollout.extra["ok_B"].tolist() == [False, False]
    assert "refuses the conversation: no tools here" in loop.session.run.notices[-1]


def test_a_prompt_that_the_context_does_not_hold_is_told(playing: Any, shelf: Path) -> None:
    _, rollout = playing(environment={"says": "open " * 3000}, replies=("open",))
    assert rollout.finish_reason == ("length", "length")
    assert rollout.extra["ok_B"].all()


def test_transcripts_are_conversations_that_sft_learns_from(shelf: Path, tmp_path: Path) -> None:
    run = hookline.run(experiment(shelf, rollout={"transcripts": 1}), out=tmp_path / "run")
    files = sorted((run.directory / "episodes" / "rl").iterdir())
    assert [file.name for file in files] == ["000001.jsonl", "000002.jsonl"]
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant", "user", "assistant"]
    assert [message["content"] for message in rows[0]["messages"]][1:] == ["open read", "it is open", "close"]
    assert rows[0]["reward"] == 1.25
    again = {**experiment(shelf), "plugins": []}
    again["phases"] = [
        {"name": "sft", "steps": 1, "rollout": {"use": "dataset", "path": str(files[0]), "rows": 2}, "update": "sft"}
    ]
    figures = hookline.run(again, out=tmp_path / "sft").rows()[-1]["metrics"]
    assert figures["nll"] > 0


# -- a run that is killed goes on as if nothing had happened


class Killed(BaseException):
    """Stands for a kill: nothing in the run catches it."""


def outcome(run: Path) -> tuple[list[Any], str, list[str]]:
    """The figures of each step, the weights at the end, and the transcripts."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = hashlib.sha256(next((run / "phases" / "rl").rglob("model.safetensors")).read_bytes()).hexdigest()
    told = [path.read_text() for path in sorted((run / "episodes" / "rl").iterdir())]
    return [(row["step"], row["metrics"]) for row in rows], weights, told


@pytest.mark.parametrize("environment", ["doors", "moods"])
@pytest.mark.parametrize("at", [3, 7, 10])
def test_a_kill_in_the_middle_of_an_episode_changes_nothing(
    shelf: Path, tmp_path: Path, environment: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `moods` answers otherwise each time: its episodes that were over are in the journal, the others are played anew, and so the
    # run that goes on has other figures than one that was not killed, but the same as its journal
    made = experiment(
        shelf, ("open read", "open", "close"), environment={"use": environment}, rollout={"transcripts": 1}
    )
    made["phases"][0] |= {"steps": 3, "save": {"every": 1}}
    whole = hookline.run(made, out=tmp_path / "whole").directory if environment == "doors" else None
    count = 0
    original = Played.step

    async def step(self: Played, reply: str) -> Any:
        nonlocal count
        count += 1
        if count == at:
            raise Killed
        return await original(self, reply)

    monkeypatch.setattr(Played, "step", step)
    with pytest.raises(hookline.PluginError, match="Killed"):
        hookline.run(made, out=tmp_path / "killed")
    before = (tmp_path / "killed" / "journal.jsonl").read_text() if environment == "moods" and at > 6 else ""
    run = hookline.run(made, out=tmp_path / "killed").directory
    if whole is not None:
        assert outcome(run) == outcome(whole)
        return
    assert (run / "journal.jsonl").read_text().startswith(before)
    hookline.reproduce(run, out=tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(run)


def test_a_failure_is_journaled_so_that_a_resumed_run_does_not_judge_what_it_had_not(
    shelf: Path, tmp_path: Path
) -> None:
    made = experiment(shelf, environment={"bad": "raise"})
    made["phases"][0]["patience"] = 9
    with pytest.raises(hookline.NumbersError):
        hookline.run(made, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    told = [line["value"] for line in lines if "episode" in line["key"]]
    assert len(told) == 4
    assert all(turns[-1]["failed"].startswith("environment 'doors' did not answer: KeyError") for turns in told)


def test_the_episodes_of_a_group_begin_with_one_prompt_that_the_seed_decides(playing: Any) -> None:
    group = {"use": "rloo", "lr": 1e-3}
    _, rollout = playing(environment={"use": "riddles"}, rollout={"samples_per_prompt": 3, "rows": 3}, update=group)
    prompts = [rollout.prompt_text(row) for row in range(9)]
    assert [prompts[row] == prompts[row // 3 * 3] for row in range(9)] == [True] * 9
    assert len(set(prompts)) > 1
    _, again = playing(environment={"use": "riddles"}, rollout={"samples_per_prompt": 3, "rows": 3}, update=group)
    assert [again.prompt_text(row) for row in range(9)] == prompts


def test_an_episode_of_several_rows_has_the_weight_of_one_answer_in_grpo() -> None:
    mask_BT = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    share_BT = maths.episode_share(mask_BT, torch.tensor([5, 5, 9]))
    assert share_BT.tolist() == [[0.25, 0.25, 0.0, 0.25], [0.25, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]


@pytest.mark.slow(20)
def test_two_processes_play_the_episodes_that_one_plays(warm: Any, shelf: Path, tmp_path: Path) -> None:
    thinks = ("<think>a file</think>open", "open", "<think>a list</think>close")
    options = {"rows": 3, "samples_per_prompt": 2, "max_new_tokens": 32, "transcripts": 1}
    made = experiment(shelf, thinks, template=STRIPS, rollout=options, update={"use": "reinforce", "lr": 1e-3})
    hookline.run(made, out=tmp_path / "one")
    program = Path(__file__).parents[1] / "resume" / "killed_run.py"
    request = json.dumps({"experiment": made, "out": str(tmp_path / "two"), "kill": None})
    ended = ranks.finished(ranks.start(warm, [[program]] * 2), [request] * 2)
    assert [code for code, _, _ in ended] == [0, 0], ended
    (one, _, told), (two, _, same) = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert told == same
    for (_, here), (_, there) in zip(one, two):
        assert here.keys() == there.keys()
        assert all(here[name] == pytest.approx(there[name], rel=1e-4, abs=1e-6) for name in here)


class Rows(SimpleNamespace):
    """The part of a batch that a mean reads."""

    def __len__(self) -> int:
        return len(self.mask_BT)


def test_grpo_averages_over_episodes_and_not_over_rows() -> None:
    grpo = GRPO(GRPO.Config(lr=1e-3))
    mask_BT = torch.tensor([[1, 1], [1, 0], [1, 0]], dtype=torch.bool)
    x_BT = torch.tensor([[1.0, 2.0], [6.0, 0.0], [5.0, 0.0]])
    counts = {"rows": 3.0, "episode_share_BT": 2.0}
    for extra, expected in (
        ({}, (1.5 + 6 + 5) / 3),
        ({"episode_share_BT": maths.episode_share(mask_BT, torch.tensor([4, 4, 7]))}, (3.0 + 5) / 2),
    ):
        mb: Any = MicroBatch(Rows(mask_BT=mask_BT, extra=extra), None, counts.__getitem__)  # type: ignore[type-var, arg-type]
        assert float(grpo.average(mb, x_BT).value) == pytest.approx(expected)
