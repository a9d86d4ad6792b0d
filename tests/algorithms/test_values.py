"""Value learning against the textbook: single updates, fixed points, targets, and what guided decoding draws."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hookline import ExperimentError, PluginError, Rollout
from hookline.loop.loop import PhaseLoop
from hookline.loop.rewards import ask_rewards
from hookline.testing import open_phase
from hookline_plugins.algorithms.values import expectile, on_taken, targets
from hookline_plugins.guidance import guided_policy
from hookline_plugins.tasks import exact

Lab = Callable[..., PhaseLoop]
SGD = {"optimizer": "sgd", "reduce": "sum", "grad_clip": 1e9}
# After `go` one may `stay` (.3) or `risk`, and then get 1 (`win`) or 0 (`lose`), equally often.
EPISODES = [
    [["stay", "end", 0.3]],
    [["stay", "end", 0.3]],
    [["risk", "dice", 0.0], ["win", "end", 1.0]],
    [["risk", "dice", 0.0], ["lose", "end", 0.0]],
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """`lab(update, rollout)`: a phase on a table, by default on the four episodes."""
    data = tmp_path / "episodes.jsonl"
    said = [
        {"prompt": "go", "turns": turns, "text": " ".join(f"go {a} {s}" for a, s, _ in turns)} for turns in EPISODES
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in said))
    count, stack = itertools.count(), contextlib.ExitStack()

    def make(update: dict[str, Any], rollout: dict[str, Any] | None = None, **changes: Any) -> PhaseLoop:
        words = changes.pop("words", str(data))
        model = {"build": "tabular", "sees": ["last"], "context": 32, **changes.pop("model", {})}
        out = changes.pop("out", tmp_path / f"run{next(count)}")
        phase = {
            "name": "learn", "steps": 1000, "update": update,
            "rollout": rollout or {"use": "transcripts", "path": str(data), "rows": 4}, **changes,
        }  # fmt: skip
        experiment = {
            "name": "lab", "seed": 7, "tokenizer": {"train": "words", "on": words}, "model": model,
            "phases": [phase], "trackers": [],
        }  # fmt: skip
        return stack.enter_context(open_phase(experiment, out))

    with stack:
        yield make


def steps(loop: PhaseLoop, n: int) -> None:
    for _ in range(n):
        loop.step()
        loop.phase.scope.step += 1
        loop.phase.metrics.collect()


def read(loop: PhaseLoop, head: str, *words: str) -> torch.Tensor:
    """A head's row behind the last of these words."""
    role, tokenizer = loop.phase.roles["policy"], loop.session.tokenizer
    with torch.no_grad():
        ids = torch.tensor([tokenizer.prompt(" ".join(words))])
        return role.heads[head](role.base.base_model(input_ids=ids).last_hidden_state[0, -1])


def q(loop: PhaseLoop, state: str, action: str, head: str = "q1") -> float:
    return float(read(loop, head, *state.split())[loop.session.tokenizer.encode(action)[0]])


# -- single updates


@pytest.mark.parametrize("algorithm", ["sarsa", "q-learning"])
@pytest.mark.parametrize(("task", "tolerance"), [("walks", 1e-6), ("cliff", 2e-5)])
def test_each_online_step_is_the_textbooks_update(lab: Lab, algorithm: str, task: str, tolerance: float) -> None:
    """Two learners, two tables, α = .5: Q(s, a) moves as a dictionary moved by hand in double precision does."""
    words = {"walks": "builtin:walks/walks", "cliff": "builtin:cliff/words"}[task]
    learners = task == "cliff"
    loop = lab(
        {"use": algorithm, "lr": 0.5, "gamma": 0.9, **SGD},
        {"use": "episodes", "task": f"builtin:{task}", "rows": 2, "turns": 1, "learners": learners, "epsilon": 0.3},
        words=words,
        model={"sees": ["first", "last"] if learners else ["last"]},
    )
    table: dict[tuple[str, ...], float] = {}
    process = loop.hooks.components["rollout/episodes"].process  # type: ignore[attr-defined]
    choices = {state: list(process.actions(state)) for state in reach(process)}
    allowed = {process.prompt(state): actions for state, actions in choices.items() if actions}
    seen: list[Any] = []
    update = loop.hooks.update
    loop.hooks.update = lambda ctx, batch: seen.append(batch) or update(ctx, batch)  # type: ignore[method-assign,func-returns-value]
    for _ in range(40):
        steps(loop, 1)
        batch, moved = seen.pop(), {}
        for row in range(2):
            *learner, state = batch.prompt_text(row).split()
            learner = learner if learners else []  # else it is the walk so far, and the table sees its last word
            action, *rest = batch.response_text(row).split()
            ended = not bool(((batch.extra["taken_BT"][row] == 0) & batch.mask_BT[row]).any())
            after, chosen = (None, None) if ended else (rest[-2] if len(rest) > 1 else action, rest[-1])
            here = table.get((*learner, state, action), 0.0)
            if ended:
                ahead = 0.0
            elif algorithm == "sarsa":
                ahead = table.get((*learner, after, chosen), 0.0)
            else:
                ahead = max(table.get((*learner, after, other), 0.0) for other in allowed[after])
            step = 0.5 * (float(batch.reward_BT[row].sum()) + 0.9 * ahead - here)
            moved[*learner, state, action] = moved.get((*learner, state, action), 0.0) + step
        for place, step in moved.items():
            table[place] = table.get(place, 0.0) + step
    assert len(table) > 10
    assert min(table.values()) != max(table.values())
    for (*prompt, action), value in table.items():
        assert q(loop, " ".join(prompt), action) == pytest.approx(value, abs=tolerance)


def reach(process: Any) -> list[Any]:
    states = [state for _, state in process.starts()]
    for state in states:
        for action in process.actions(state):
            states += [after for _, after, _ in process.step(state, action) if after not in states]
    return states


def test_the_conservative_term_is_the_cross_entropy_of_softmax_q(lab: Lab) -> None:
    loop = lab({"use": "q-learning", "lr": 0.1, "conservative": 2.0, "gamma": 0.0, **SGD})
    tokens = loop.session.tokenizer.vocabulary
    steps(loop, 1)
    # from 0: TD moves by lr · (r − 0), twice for `stay`; CQL by 2 lr (count − 4 / V)
    assert q(loop, "go", "stay") == pytest.approx(0.1 * 2 * 0.3 + 0.2 * (2 - 4 / tokens), abs=1e-6)
    assert q(loop, "go", "risk") == pytest.approx(0.2 * (2 - 4 / tokens), abs=1e-6)
    assert q(loop, "go", "win") == pytest.approx(-0.2 * 4 / tokens, abs=1e-6)
    assert q(loop, "win", "go") == 0


def test_slow_heads_follow_by_the_polyak_share(lab: Lab) -> None:
    loop = lab({"use": "sarsa", "lr": 0.1, "polyak": 0.25, **SGD})
    steps(loop, 1)
    first = q(loop, "go", "stay")
    assert first == pytest.approx(0.06, abs=1e-6)
    assert q(loop, "go", "stay", "q1_slow") == pytest.approx(0.25 * first, abs=1e-7)


# -- fixed points

AHEAD = {"sarsa": 0.5, "q-learning": 1.0, "ilql": 0.9}


@pytest.mark.parametrize("algorithm", AHEAD)
def test_what_risk_is_worth_tells_the_algorithms_apart(lab: Lab, algorithm: str) -> None:
    """Half the throws pay 1: on average .5, at best 1, and the τ-expectile of a fair coin is τ."""
    own = {"expectile": 0.9, "conservative": 0.0, "polyak": 1.0, "gamma": 1.0} if algorithm == "ilql" else {}
    loop = lab({"use": algorithm, "lr": 0.2, "clone": 1.0, **SGD, **own})
    steps(loop, 150)
    for head in ("q1", "q2") if algorithm == "ilql" else ("q1",):
        assert q(loop, "go", "risk", head) == pytest.approx(AHEAD[algorithm], abs=0.01)
        assert q(loop, "go", "stay", head) == pytest.approx(0.3, abs=1e-3)
        assert q(loop, "dice", "win", head) == pytest.approx(1.0, abs=1e-3)
    policy = dict(enumerate(torch.softmax(loop.phase.roles["policy"].net.table.weight, 0)[:, 0].tolist()))
    assert sum(policy.values()) == pytest.approx(1, abs=1e-5)


def test_ilql_at_half_is_sarsa(lab: Lab) -> None:
    half = lab({"use": "ilql", "expectile": 0.5, "conservative": 0, "polyak": 1.0, "gamma": 1.0, "lr": 0.2, **SGD})
    sarsa = lab({"use": "sarsa", "lr": 0.2, **SGD})
    for loop in (half, sarsa):
        steps(loop, 200)
    for state, action in (("go", "stay"), ("go", "risk"), ("dice", "win"), ("dice", "lose")):
        assert q(half, state, action) == pytest.approx(q(sarsa, state, action), abs=0.01)
    assert float(read(half, "v", "dice")) == pytest.approx(0.5, abs=0.01)


def test_lambda_one_waits_for_the_end_and_zero_looks_one_action_ahead(lab: Lab) -> None:
    """One step from 0: only with λ = 1 does the throw's pay reach `risk` at once."""
    for lam, reached in ((0.0, 0.0), (0.5, 0.05), (1.0, 0.1)):
        loop = lab({"use": "sarsa", "lam": lam, "lr": 0.1, **SGD})
        steps(loop, 1)
        assert q(loop, "go", "risk") == pytest.approx(reached, abs=1e-6)


# -- pure functions


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0, 1), st.integers(0, 3))
def test_targets_have_their_limits(rewards: list[float], gamma: float, gap: int) -> None:
    """λ = 1 is the discounted sum to come, λ = 0 the reward and the next value; shown words between change nothing."""
    chosen = [i * (gap + 1) for i in range(len(rewards))]
    T = chosen[-1] + 1
    mask = torch.zeros(1, T, dtype=torch.bool)
    mask[0, chosen] = True
    reward, value = torch.zeros(1, T), torch.full((1, T), math.nan)
    reward[0, chosen] = torch.tensor(rewards)
    value[0, chosen] = torch.linspace(-1, 1, len(rewards))
    ahead = [*value[0, chosen].tolist()[1:], 0.0]
    one = targets(reward, value, mask, mask.float(), gamma, 0.0)[0, chosen].tolist()
    assert one == pytest.approx([r + gamma * v for r, v in zip(rewards, ahead)], abs=1e-5)
    whole, total = [], 0.0
    for r in reversed(rewards):
        total = r + gamma * total
        whole.insert(0, total)
    assert targets(reward, value, mask, mask.float(), gamma, 1.0)[0, chosen].tolist() == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_an_action_not_yet_taken_stands_for_its_value(lam: float) -> None:
    mask, taken = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[1.0, 0.0]])
    found = targets(torch.tensor([[2.0, 0.0]]), torch.tensor([[9.0, 5.0]]), mask, taken, 0.5, lam)
    assert found[0, 0] == pytest.approx(2 + 0.5 * 5)


def test_what_was_paid_on_an_action_not_yet_taken_moves_to_the_last_taken_one() -> None:
    mask = torch.tensor([[True, False, True, False, True], [True, False, True, False, False]])
    taken = torch.tensor([[1.0, 0, 1, 0, 0], [1.0, 0, 1, 0, 0]])
    paid = torch.tensor([[2.0, 0, 1, 0, -5], [1.0, 0, 3, 0, 0]])
    moved = on_taken(paid, mask, taken)
    assert moved.tolist() == [[2, 0, -4, 0, 0], [1, 0, 3, 0, 0]]
    found = targets(moved[:1], torch.full((1, 5), 7.0), mask[:1], taken[:1], 1.0, 0.0)
    assert found[0, [0, 2]].tolist() == [2 + 7, -4 + 7]


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("values", [[1.0], [0.0, 1.0], [-3.0, 2.0, 2.5, 2.5], [5.0, -5.0, 0.1]])
def test_the_expectile_lies_between_mean_and_maximum(values: list[float], tau: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    low, high = min(values), max(values)
    for _ in range(60):  # the slope of the loss rises in v, so bisect it
        v = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(expectile(x - v, tau).sum(), v)
        low, high = (low, v.item()) if slope > 0 else (v.item(), high)
    weight = torch.where(x > low, tau, 1 - tau)
    assert low == pytest.approx(float((weight * x).sum() / weight.sum()), abs=1e-6)
    if tau == 0.5:
        assert low == pytest.approx(float(x.mean()), abs=1e-6)
    if tau == 0.999:
        assert low > max(values) - 0.02


# -- acting


def test_guided_draws_from_the_policy_tilted_by_the_lower_q(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = lab(
        {"use": "ilql", "lr": 0.05, "gamma": 1.0},
        {"use": "dataset", "path": "builtin:walks/walks", "rows": 50},
        reward={"use": "task", "task": "builtin:walks"},
        words="builtin:walks/walks",
        model={"task": "builtin:walks", "sees": ["position", "last"], "context": 12},
        evaluate=[{
            "name": "guided", "rows": 40, "reward": {"use": "task", "task": "builtin:walks"},
            "rollout": {"use": "guided", "prompts": "builtin:walks", "rows": 20, "max_new_tokens": 10, "beta": 7.0},
        }],
    )  # fmt: skip
    steps(loop, 20)
    judged: list[Rollout] = []

    def ask(ctx: Any, rewards: Any, rollout: Rollout) -> Any:
        judged.append(rollout)
        return ask_rewards(ctx, rewards, rollout)

    monkeypatch.setattr("hookline.loop.evaluation.ask_rewards", ask)
    loop.evaluators[0].run(loop.ctx)
    [drawn] = judged
    assert drawn.behaviour is not None
    role = loop.phase.roles["policy"]
    for row in (0, 7, 19):
        ids = torch.tensor([drawn.prompt_ids(row) + drawn.response_ids(row)])
        with torch.no_grad():
            hidden = role.base.base_model(input_ids=ids).last_hidden_state
            lower = torch.minimum(role.heads["q1"](hidden), role.heads["q2"](hidden))
            logp = torch.log_softmax(torch.log_softmax(role.base(ids).logits, -1) + 7.0 * lower, -1)[0]
        P = len(drawn.prompt_ids(row))
        want = [float(logp[P - 1 + t, token]) for t, token in enumerate(drawn.response_ids(row))]
        assert drawn.behaviour.logprobs_BT[row, : len(want)].tolist() == pytest.approx(want, abs=1e-5)
    process = loop.ctx.task("builtin:walks").process()
    policy = exact.policy_of(loop.ctx, process)
    plain = guided_policy(loop.ctx, process, "policy", 0.0)
    assert exact.evaluate(process, plain, policy) == pytest.approx((exact.evaluate(process, policy)[0], 0), abs=1e-4)


def test_values_need_a_learner(lab: Lab) -> None:
    loop = lab(
        {"use": "sft"}, {"use": "episodes", "task": "builtin:walks", "epsilon": 0.1}, words="builtin:walks/walks"
    )
    with pytest.raises(ExperimentError, match="role 'policy' has no Q head"):
        loop.step()


def test_a_sum_has_one_part(lab: Lab) -> None:
    with pytest.raises(ExperimentError, match="reduce: sum is over all actions of a step"):
        lab({"use": "sarsa", "reduce": "sum", "minibatches": 2})
    with pytest.raises(ExperimentError, match="reduce: sum would be clipped to a norm of 1; set grad_clip"):
        lab({"use": "sarsa", "reduce": "sum", "optimizer": "sgd"})


def test_episodes_go_on_behind_all_their_words(lab: Lab) -> None:
    """`walks` has prompts for first states only, so a turn later the prompt is the walk so far."""
    loop = lab(
        {"use": "sarsa"}, {"use": "episodes", "task": "builtin:walks", "rows": 6, "turns": 1, "epsilon": 1.0},
        words="builtin:walks/walks",
    )  # fmt: skip
    first, second = (loop.hooks.rollout(loop.ctx) for _ in range(2))
    longer = 0
    for row in range(6):
        if first.finish_reason[row] == "length":
            said = first.response_text(row).split()[0]
            assert second.prompt_text(row) == f"{first.prompt_text(row)} {said}"
            longer += 1
    assert longer


def test_a_head_over_the_vocabulary_is_read_token_by_token(lab: Lab) -> None:
    """`q1.logprobs`, `.logsumexp`, `.entropy` are those of the head's own logits, whatever the batch's temperature."""
    loop = lab(
        {"use": "ilql"}, {"use": "generate", "prompts": "builtin:walks", "rows": 8, "temperature": 2.0, "max_new_tokens": 8},
        words="builtin:walks/walks", reward={"use": "task", "task": "builtin:walks"},
    )  # fmt: skip
    rows = loop.hooks.rollout(loop.ctx)
    figures = ("logprobs", "logsumexp", "entropy")
    stats = loop.ctx.stats(rows, want=("q1", *(f"q1.{name}" for name in figures)))
    logp = torch.log_softmax(stats["q1"], -1)
    chosen = logp.gather(-1, rows.token_ids_BT[..., None])[..., 0]
    mask = rows.mask_BT
    torch.testing.assert_close(stats["q1.logprobs"][mask], chosen[mask])
    torch.testing.assert_close(stats["q1.logsumexp"][mask], stats["q1"].logsumexp(-1)[mask])
    torch.testing.assert_close(stats["q1.entropy"][mask], -(logp.exp() * logp).sum(-1)[mask])
    with pytest.raises(PluginError, match=r"no statistic or head 'q1.logprob'; did you mean 'q1.logprobs'"):
        loop.ctx.stats(rows, want=("q1.logprob",))
