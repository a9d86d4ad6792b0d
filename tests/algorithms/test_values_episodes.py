"""Episodes of a process, played and recorded: what lies in the mask, what is paid where, what survives a kill."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hookline import DataError, ExperimentError, Rollout
from hookline.loop.loop import PhaseLoop
from hookline.testing import open_phase
from hookline_plugins.rollouts.episodes import epsilon_greedy
from hookline_plugins.tasks import exact
from hookline_plugins.tasks.cliff import Cliff
from hookline_plugins.tasks.wordle import WORDS, Wordle, answer

Lab = Callable[..., PhaseLoop]
NOTES = "builtin:wordle?notes=true"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """`lab("cliff", turns=1)`: a phase of SARSA on episodes of a task, or of another update."""
    count, stack = itertools.count(), contextlib.ExitStack()
    words = {"walks": "builtin:walks/walks", "cliff": "builtin:cliff/words", NOTES: "builtin:wordle/words?notes=true"}

    def make(
        task: str, update: Any = None, model: Any = None, out: str = "", tokenizer: Any = None, **rollout: Any
    ) -> PhaseLoop:
        named = task if ":" in task else f"builtin:{task}"
        experiment = {
            "name": "lab", "seed": 3, "tokenizer": tokenizer or {"train": "words", "on": words[task]},
            "model": {"build": "tabular", "sees": ["first", "last"], "context": 64, **(model or {})},
            "phases": [{
                "name": "learn", "steps": 100, "rollout": {"use": "episodes", "task": named, **rollout},
                "update": update or {"use": "sarsa", "optimizer": "sgd", "reduce": "sum", "lr": 0.5, "grad_clip": 1e9},
                "evaluate": [{
                    "name": "greedy", "rows": rollout.get("rows", 20), "reward": "recorded",
                    "rollout": {"use": "episodes", "task": named, "rows": rollout.get("rows", 20),
                                "learners": rollout.get("learners", False), "epsilon": 0, "longest": 20},
                }] if "epsilon" in rollout else [],
            }],
            "trackers": [],
        }  # fmt: skip
        return stack.enter_context(open_phase(experiment, tmp_path / (out or f"run{next(count)}")))

    with stack:
        yield make


def play(loop: PhaseLoop) -> Rollout:
    rows = loop.hooks.rollout(loop.ctx)
    loop.phase.scope.step += 1
    return rows


def text(loop: PhaseLoop, ids: list[int]) -> list[str]:
    return [str(loop.session.tokenizer.inner.id_to_token(i)) for i in ids]


def test_whole_episodes_hold_what_the_task_pays(lab: Lab) -> None:
    """Twenty starts, one row each; a walk's rewards add up to what the task says of its words."""
    loop = lab("walks", model={"task": "builtin:walks", "sees": ["position", "last"]}, rows=20)
    task = loop.ctx.task("builtin:walks")
    for _ in range(3):
        rows = play(loop)
        assert sorted(rows.prompt_text(i) for i in range(20)) == sorted(f"n{node}" for node in range(1, 21))
        for row in range(20):
            assert float(rows.extra["recorded_BT"][row].sum()) == pytest.approx(
                task.reward(rows.records[row], rows.response_text(row)), abs=1e-6
            )
        inside = torch.arange(rows.mask_BT.shape[1]) < rows.length_B[:, None]
        assert torch.equal(rows.mask_BT, inside)
        assert torch.equal(rows.extra["taken_BT"] == 1, inside)
        assert set(rows.finish_reason) == {"stop"}
        logprobs = loop.ctx.stats(rows).logprobs_BT
        torch.testing.assert_close(rows.behaviour.logprobs_BT, logprobs)  # type: ignore[union-attr]


def test_shown_words_lie_outside_the_mask(lab: Lab) -> None:
    loop = lab("cliff", rows=3, turns=4, epsilon=1.0)
    rows = play(loop)
    for row in range(3):
        words = text(loop, rows.response_ids(row))
        moves = {"up", "down", "left", "right"}
        assert [word in moves for word in words] == rows.mask_BT[row, : len(words)].tolist()
        assert len(words) == 9
        assert rows.extra["taken_BT"][row].tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 0]
        paid = rows.extra["recorded_BT"][row]
        assert set(paid[0:8:2].tolist()) <= {-1.0, -100.0}
        assert not paid[1::2].any()
        assert paid[8] == 0
        allowed = rows.extra["actions_BT"][row]
        assert set(text(loop, allowed[8].tolist())) == moves
        assert set(allowed[1].tolist()) == {-1}
    assert rows.finish_reason == ("length",) * 3
    again = play(loop)  # goes on where it stopped, with the action that was chosen
    for row in range(3):
        assert text(loop, again.response_ids(row))[0] == text(loop, rows.response_ids(row))[-1]
        assert again.prompt_text(row) == text(loop, rows.response_ids(row))[-2]


def test_a_word_that_is_no_action_ends_the_episode(lab: Lab) -> None:
    """A table that knows nothing says anything: what was paid stays, nothing follows."""
    loop = lab("walks", rows=20)
    rows = play(loop)
    process = loop.ctx.task("builtin:walks").process()
    assert process is not None
    starts = {process.prompt(state): state for _, state in process.starts()}
    wrong = 0
    for row in range(20):
        said = text(loop, rows.response_ids(row))
        earned, ended = process.play(starts[rows.prompt_text(row)], said)
        assert ended
        assert float(rows.extra["recorded_BT"][row].sum()) == pytest.approx(earned, abs=1e-6)
        state = starts[rows.prompt_text(row)]
        for word in said[:-1]:
            [(_, state, _)] = process.step(state, word)
        wrong += said[-1] not in process.actions(state)
    assert wrong > 10


def test_every_turn_is_drawn_anew(lab: Lab) -> None:
    """Random moves: each follows each about equally often, so no turn repeats another's random numbers."""
    loop = lab("cliff", rows=60, epsilon=1.0, longest=8)
    rows = play(loop)
    pairs: Counter[tuple[str, str]] = Counter()
    for row in range(60):
        moves = text(loop, rows.token_ids_BT[row, rows.mask_BT[row]].tolist())
        pairs.update(itertools.pairwise(moves))
    expected = sum(pairs.values()) / 16
    assert len(pairs) == 16
    assert sum((n - expected) ** 2 / expected for n in pairs.values()) < 15 + 4 * math.sqrt(30)


def test_chance_falls_as_the_process_says(lab: Lab) -> None:
    """Openings at random: the answers to each come as often as the hidden words give them (χ²)."""
    loop = lab(NOTES, rows=500, epsilon=1.0, longest=1, model={"sees": ["last"]})
    process = loop.ctx.task(NOTES).process()
    assert process is not None
    start = process.starts()[0][1]
    found: Counter[tuple[str, str]] = Counter()
    for _ in range(4):
        rows = play(loop)
        found.update((said[0], said[1]) for said in (text(loop, rows.response_ids(i)) for i in range(500)))
    opened: Counter[str] = Counter()
    for (action, _), count in found.items():
        opened[action] += count
    assert set(opened) == set(WORDS)
    off, total = 0.0, 0
    for action, count in opened.items():
        for chance, after, _ in process.step(start, action):
            expected, seen = chance * count, found[action, process.shows(start, action, after).split()[0]]
            off += (seen - expected) ** 2 / expected
            total += 1
    cells = total - len(opened)
    assert abs(off - cells) < 4 * math.sqrt(2 * cells)


def test_epsilon_greedy_shares_ties_and_leaves_out_what_is_not_allowed() -> None:
    q = torch.tensor([[1.0, 5.0, 1.0, 0.0], [2.0, 2.0, 9.0, 0.0]])
    found = epsilon_greedy(q, [[0, 2, 3], [0, 1]], 0.3).exp()
    torch.testing.assert_close(found, torch.tensor([[0.45, 0, 0.45, 0.1], [0.5, 0.5, 0, 0]]))


def test_a_kill_between_steps_changes_nothing(lab: Lab) -> None:
    """Episodes under way, actions chosen and not taken, counts and tables: all as if nothing had happened."""
    options = {"rows": 3, "turns": 1, "learners": True, "epsilon": 0.2, "episodes": 2}
    whole = lab("cliff", **options)
    for _ in range(30):
        whole.step()
        whole.phase.scope.step += 1
    first = lab("cliff", out="killed", **options)
    for _ in range(17):
        first.step()
        first.phase.scope.step += 1
    first.checkpoint.save()
    first.session.run.close()
    second = lab("cliff", out="killed", **options)
    assert second.phase.scope.step == 17
    for _ in range(13):
        second.step()
        second.phase.scope.step += 1
    mine, theirs = (loop.phase.roles["policy"].tensors() for loop in (whole, second))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    games = [loop.hooks.components["rollout/episodes"].state_dict() for loop in (whole, second)]
    assert json.dumps(games[0]) == json.dumps(games[1])
    assert any(place["game"]["path"] for place in games[0]["places"].values() if place["game"])


def test_learners_do_not_disturb_each_other(lab: Lab) -> None:
    """A learner's table behaves the same whether or not the others' rows are there: nothing is shared but the batch."""
    loop = lab("cliff", rows=3, turns=1, learners=True, epsilon=0.2, model={"task": "builtin:cliff", "learners": 3})
    seen = set()
    for _ in range(25):
        loop.step()
        loop.phase.scope.step += 1
    role, tokenizer = loop.phase.roles["policy"], loop.session.tokenizer
    with torch.no_grad():
        for learner in range(3):
            ids = torch.tensor([tokenizer.prompt(f"learner{learner} r3c0")])
            seen.add(tuple(role.heads["q1"](role.base.base_model(input_ids=ids).last_hidden_state[0, -1]).tolist()))
    assert len(seen) == 3


def test_learners_rest_after_their_episodes(lab: Lab) -> None:
    loop = lab("walks", rows=4, turns=3, epsilon=1.0, episodes=1)
    sizes = [len(play(loop)) for _ in range(6)]
    assert sizes[0] == 4
    assert sizes[-1] == 0
    assert sizes == sorted(sizes, reverse=True)
    loop.step()  # a step without rows is one without update


def test_what_cannot_be_played_is_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the word 'up' is not in the vocabulary of the tokenizer"):
        lab("cliff", tokenizer={"train": "words", "on": "builtin:walks/walks"})
    with pytest.raises(DataError, match=r"is [0-9]+ tokens"):
        lab("cliff", tokenizer={"train": "bpe", "on": "builtin:walks/walks", "vocabulary": 260})
    with pytest.raises(DataError, match="builtin:keywords has no process to play"):
        lab("builtin:keywords", tokenizer={"train": "words", "on": "builtin:walks/walks"})
    with pytest.raises(ExperimentError, match="epsilon already defines"):
        lab("cliff", epsilon=0.1, beta=1.0)
    with pytest.raises(ExperimentError, match="fills all 64 positions of the model"):
        play(lab("cliff", rows=1, epsilon=1.0, longest=100))
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"prompt": "r3c0", "turns": [["up", "r2c0"]]}) + "\n")
    with pytest.raises(DataError, match=r"bad.jsonl row 1: the turn \['up', 'r2c0'\] is not"):
        transcripts(lab, str(bad))


def transcripts(lab: Lab, path: str) -> None:
    from hookline_plugins.rollouts.transcripts import Transcripts

    loop = lab("cliff")
    loop.phase.roles.settling = True
    Transcripts(Transcripts.Config(path=path)).setup(loop.ctx)


# -- tasks


def test_the_cliff_is_the_books() -> None:
    edge = Cliff(Cliff.Config()).process()
    assert edge.step((3, 0), "right") == [(1.0, (3, 0), -100.0)]
    assert edge.step((2, 11), "down") == [(1.0, (3, 11), -1.0)]
    assert not edge.actions((3, 11))
    assert edge.step((0, 0), "up") == [(1.0, (0, 0), -1.0)]
    assert edge.step((3, 0), "left") == [(1.0, (3, 0), -1.0)]
    best: dict[Any, float] = {}
    for _ in range(60):
        for state in ((row, column) for row in range(4) for column in range(12)):
            said = [paid + best.get(after, 0.0) for a in edge.actions(state) for _, after, paid in edge.step(state, a)]
            best[state] = max(said, default=0.0)
    assert best[3, 0] == -13


def test_wordle_answers_letter_by_letter() -> None:
    assert answer("art", "art") == "ggg"
    assert answer("eat", "net") == "yxg"
    assert answer("sun", "fox") == "xxx"
    assert answer("bee", "ace") == "xxg"
    assert answer("bee", "eat") == "xyx"


def test_wordles_optimum_and_why_one_step_is_not_enough() -> None:
    """By dynamic programming: the best is −2.70; whoever judges by the recorded games opens with the wrong word."""
    task = Wordle(Wordle.Config(notes=True))
    board = task.process()
    assert exact.evaluate(board, exact.soft_optimum(board, 0.0))[0] == pytest.approx(-2.7)
    games = task.rows("games")
    assert task.rows("games") == games
    assert len(games) == 4000
    worth = {o: [-len(g["turns"]) for g in games if g["turns"][0][0] == o] for o in ("art", "sun")}
    means = {opening: sum(said) / len(said) for opening, said in worth.items()}
    assert means["art"] < -4.4
    assert -3.5 < means["sun"] < -3.3
    words = set(task.rows("words")[0]["text"].split())
    assert all(set(game["completion"].split()) <= words for game in games)
