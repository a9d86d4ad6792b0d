"""Learning from comparisons: values at known inputs, symmetries, and closed-form optima that training must reach."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hookline
from hookline import ExperimentError, PluginError, Scored
from hookline.loop.loop import PhaseLoop
from hookline.testing import conformance, open_phase
from hookline_plugins.algorithms.best_of_n import best_of_groups
from hookline_plugins.algorithms.comparisons import comparisons, prepared
from hookline_plugins.algorithms.dpo import DPO, below, comparison_loss
from hookline_plugins.algorithms.kto import KTO, kto_loss, mismatched
from hookline_plugins.algorithms.nash_md import NashMD, wins
from hookline_plugins.algorithms.orpo import log_odds
from hookline_plugins.likelihoods import picked
from hookline_plugins.rewards.pair_accuracy import PairAccuracy
from hookline_plugins.rollouts.duel import Duel
from hookline_plugins.rollouts.population import Population
from hookline_plugins.tasks.cyclic import BEATS, REFERENCE
from hookline_plugins.tasks.exact import policy_of
from hookline_plugins.wrappers.preference import Preference

ARMS, CYCLIC, WALKS = "builtin:arms", "builtin:cyclic", "builtin:walks"
KINDS = ("sigmoid", "hinge", "ipo", "conservative", "robust", "sppo")

slow = pytest.mark.slow

test_dpo_keeps_the_laws = slow(conformance(DPO))
test_kto_keeps_the_laws = slow(conformance(KTO))
test_nash_md_keeps_the_laws = slow(conformance(NashMD))
test_preference_keeps_the_laws = slow(conformance(Preference))
test_duel_keeps_the_laws = slow(conformance(Duel))
test_population_keeps_the_laws = slow(conformance(Population, task=CYCLIC))


# -- losses as functions


def loss(kind: str, won: float, lost: float, p: float = 1.0, beta: float = 0.1, flips: float = 0.0) -> float:
    x = [torch.tensor([value], dtype=torch.float64) for value in (won, lost, p)]
    return float(comparison_loss(kind, *x, beta, flips))  # type: ignore[arg-type]


def test_values_at_the_start() -> None:
    assert loss("sigmoid", 0, 0) == pytest.approx(math.log(2))
    assert loss("ipo", 0, 0) == pytest.approx(25.0)
    assert loss("hinge", 0, 0) == 1.0
    assert loss("conservative", 0, 0, flips=0.1) == pytest.approx(math.log(2))
    assert loss("robust", 0, 0, flips=0.1) == pytest.approx(math.log(2))
    assert loss("sppo", 0, 0) == pytest.approx(50.0)
    for good in (True, False):
        assert float(kto_loss(torch.zeros(1), 0.0, torch.tensor([good]), 1.0, 1.0)) == 0.5


gains = st.floats(-30, 30)
shares = st.floats(0, 1)


@given(kind=st.sampled_from(KINDS), won=gains, lost=gains, p=shares, beta=st.sampled_from([0.05, 0.1, 1.0]))
def test_naming_the_two_the_other_way_round_changes_nothing(
    kind: str, won: float, lost: float, p: float, beta: float
) -> None:
    flips = 0.2 if kind in ("conservative", "robust") else 0.0
    assert loss(kind, won, lost, p, beta, flips) == pytest.approx(loss(kind, lost, won, 1 - p, beta, flips), abs=1e-9)


@given(won=gains, lost=gains, flips=st.floats(0.01, 0.45))
def test_robust_is_unbiased_under_flipped_labels(won: float, lost: float, flips: float) -> None:
    right, flipped = (loss("robust", won, lost, p, flips=flips) for p in (1.0, 0.0))
    assert (1 - flips) * right + flips * flipped == pytest.approx(loss("sigmoid", won, lost), abs=1e-8)


def test_conservative_stops_at_the_odds_it_believes_in() -> None:
    h = math.log(0.9 / 0.1)
    least = loss("conservative", h / 0.1, 0, flips=0.1)
    assert all(loss("conservative", h / 0.1 + d, 0, flips=0.1) > least for d in (-0.1, 0.1))


@given(scores=st.lists(gains, min_size=2, max_size=2), beta=st.sampled_from([0.1, 1.0]))
def test_a_ranking_of_two_is_bradley_terry(scores: list[float], beta: float) -> None:
    score_B = beta * torch.tensor(scores, dtype=torch.float64)
    both = picked(score_B, below(torch.zeros(2), torch.tensor([1.0, 0.0])))
    assert float(both.sum()) == pytest.approx(loss("sigmoid", *scores, beta=beta), abs=1e-7)


def test_a_ranking_of_four_is_plackett_luce_and_ties_are_not_compared() -> None:
    score = torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64)
    order = [2, 0, 3, 1]
    reward = torch.zeros(4).index_put((torch.tensor(order),), torch.tensor([3.0, 2, 1, 0]))
    want = sum(-float(torch.log_softmax(score[order[k:]], 0)[0]) for k in range(4))
    assert float(picked(score, below(torch.zeros(4), reward)).sum()) == pytest.approx(want)
    assert float(picked(score, below(torch.zeros(4), torch.ones(4))).abs().sum()) == 0.0
    assert float(picked(score, below(torch.arange(4), reward)).abs().sum()) == 0.0  # four prompts, one answer each


def test_odds_keep_their_digits_near_certainty() -> None:
    for logprob in (-20.0, -1.0, -1e-3, -1e-5):
        exact = logprob - math.log(-math.expm1(logprob))
        got = float(log_odds(torch.tensor(logprob, dtype=torch.float32)))
        assert got == pytest.approx(exact, rel=1e-5)
    sure = torch.tensor([0.0, -1e-12], requires_grad=True)
    log_odds(sure).sum().backward()
    assert torch.isfinite(log_odds(sure)).all()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_the_best_of_each_group_is_its_first_best() -> None:
    reward = torch.tensor([0.0, 2.0, 1.0, 2.0, -1.0, -1.0])
    group = torch.tensor([7, 3, 7, 3, 9, 9])
    assert best_of_groups(reward, group).tolist() == [1, 2, 4]
    assert best_of_groups(torch.zeros(0), torch.zeros(0)).tolist() == []


# -- a phase to look into


Made = contextlib.ExitStack


@pytest.fixture
def made() -> Iterator[Made]:
    with contextlib.ExitStack() as opened:
        yield opened


def loop(made: Made, folder: Path, task: str, **phase: Any) -> PhaseLoop:
    """The loop of a phase on a one-step task, by a table that starts at the task's reference."""
    experiment = {
        "name": "lab",
        "seed": 5,
        "threads": 1,
        "tokenizer": {"train": "words", "on": task + ("/walks" if task == WALKS else "/answers")},
        "model": {"build": "tabular", "task": task, "sees": ["position", "last"], "context": 12},
        "phases": [{"name": "p", "rollout": {"use": "population", "task": task}, "evaluate": [], **phase}],
        "trackers": [],
    }
    return made.enter_context(open_phase(experiment, Path(tempfile.mkdtemp(dir=folder))))


def trained(running: PhaseLoop) -> torch.Tensor:
    """Take all steps; the probabilities of the arms at the end."""
    for _ in range(running.spec.steps):
        running.step()
        running.phase.scope.step += 1
    return arms(running)


def arms(running: PhaseLoop) -> torch.Tensor:
    name = running.spec.rollout.options["task"]
    process = running.ctx.task(str(name)).process()
    assert process is not None
    said = policy_of(running.ctx, process)(process.starts()[0][1])
    return torch.tensor(list(said.values()), dtype=torch.float64)


ADAM = {"lr": 0.2, "schedule": "cosine"}
PAID = {"use": "task", "task": ARMS}


@pytest.mark.parametrize(
    ("who", "learner", "opponent"),
    [
        pytest.param("policy", 0.0, 0.0, marks=slow),
        pytest.param("reference", 1.0, 1.0, marks=slow),
        ("mixture", 0.3, 0.9),
    ],
)
def test_dpo_reaches_its_optimum_whoever_answers(
    made: Made, tmp_path: Path, who: str, learner: float, opponent: float
) -> None:
    rollout = {"use": "population", "task": ARMS, "learner": learner, "opponent": opponent}
    running = loop(made, tmp_path, ARMS, rollout=rollout, update={"use": "dpo", "beta": 0.5, **ADAM}, steps=200)
    assert trained(running).tolist() == pytest.approx([0.80077, 0.16256, 0.03667], abs=4e-4), who


def test_ipo_reaches_its_optimum(made: Made, tmp_path: Path) -> None:
    rollout = {"use": "population", "task": ARMS, "learner": 1, "opponent": 1}
    update = {"use": "dpo", "loss": "ipo", "beta": 0.5, **ADAM}
    probabilities = trained(loop(made, tmp_path, ARMS, rollout=rollout, update=update, steps=120))
    assert probabilities.tolist() == pytest.approx([0.31881, 0.32677, 0.35442], abs=5e-5)


@pytest.mark.parametrize("kind", ["conservative", "robust"])
def test_label_noise_moves_the_optimum_where_it_should(made: Made, tmp_path: Path, kind: str) -> None:
    """Two arms of the three, compared by labels that are wrong with probability ε: the margin ends at β log-odds."""
    update = {"use": "dpo", "loss": kind, "flips": 0.1, "beta": 1.0, **ADAM}
    running = loop(made, tmp_path, ARMS, update=update, steps=120)
    task = running.ctx.task(ARMS)
    eps = 0.1
    if kind == "robust":  # noisy labels, corrected: ends where clean ones would
        population = next(s.component for _, s in running.phase.stateful() if isinstance(s.component, Population))
        population.preference_BK = (1 - eps) * population.preference_BK + eps * (1 - population.preference_BK)
        assert trained(running).tolist() == pytest.approx(soft(1.0, [1, 0, -1]), abs=1e-3)
    else:  # clean labels, distrusted: less sure than they are
        gains = trained(running).log() - torch.tensor([0.2, 0.3, 0.5]).log()
        clean = task.preference({"prompt": "pull"}, "good", "fair")
        assert 0 < gains[0] - gains[1] < math.log(clean / (1 - clean))


def soft(beta: float, rewards: list[float]) -> list[float]:
    weight = torch.tensor([0.2, 0.3, 0.5]).log() + torch.tensor(rewards) / beta
    return torch.softmax(weight, 0).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("tau", "steps", "want", "exploitable"),
    [
        (1.0, 100, [0.64366, 0.23962, 0.11672], 0.14517),
        pytest.param(0.1, 400, [0.45348, 0.14884, 0.39767], 0.10628, marks=slow),
        pytest.param(0.05, 500, [0.32559, 0.21462, 0.45980], 0.05475, marks=slow),
    ],
)
def test_nash_md_reaches_the_regularised_equilibrium(
    made: Made, tmp_path: Path, tau: float, steps: int, want: list[float], exploitable: float
) -> None:
    rollout = {"use": "population", "task": CYCLIC, "opponent": 0.05, "final_opponent": 0.0}
    update = {"use": "nash-md", "tau": tau, "lr": 1.0, "optimizer": "sgd"}
    reached = trained(loop(made, tmp_path, CYCLIC, rollout=rollout, update=update, steps=steps))
    assert reached.tolist() == pytest.approx(want, abs=2e-3)
    assert exploitability(reached) == pytest.approx(exploitable, abs=2e-3)


def exploitability(policy: torch.Tensor) -> float:
    return float((torch.tensor(BEATS, dtype=torch.float64) @ policy).max()) - 0.5


def test_a_fixed_mixture_rests_nearer_to_the_reference(made: Made, tmp_path: Path) -> None:
    rollout = {"use": "population", "task": CYCLIC, "opponent": 0.5}
    update = {"use": "nash-md", "tau": 0.5, "lr": 1.0, "optimizer": "sgd"}
    pi = trained(loop(made, tmp_path, CYCLIC, rollout=rollout, update=update, steps=60))
    mixed = torch.softmax(0.5 * pi.log() + 0.5 * torch.tensor(REFERENCE, dtype=torch.float64).log(), 0)
    rest = torch.softmax(torch.tensor(REFERENCE).double().log() + torch.tensor(BEATS).double() @ mixed / 0.5, 0)
    assert pi.tolist() == pytest.approx(rest.tolist(), abs=2e-3)


def test_a_reward_cannot_hold_a_cycle(made: Made, tmp_path: Path) -> None:
    """The negative control: Bradley–Terry puts one arm first, the policy collapses to it, and another arm beats it."""
    rollout = {"use": "population", "task": CYCLIC, "learner": 1, "opponent": 1}
    update = {"use": "dpo", "beta": 0.02, "lr": 0.3, "schedule": "cosine"}
    running = loop(made, tmp_path, CYCLIC, rollout=rollout, update=update, steps=300)
    collapsed = trained(running)
    assert float(collapsed.max()) > 0.95
    assert exploitability(collapsed) > 0.15 > 0.05475


def test_kto_starts_at_a_half_and_orders_the_arms(made: Made, tmp_path: Path) -> None:
    rollout = {"use": "population", "task": ARMS, "learner": 1}
    running = loop(made, tmp_path, ARMS, rollout=rollout, update={"use": "kto", "beta": 0.5, **ADAM}, steps=40)
    running.step()
    figures, _ = running.phase.metrics.collect()
    assert figures["loss"] == 0.5
    assert figures["kl"] == 0.0
    running.phase.scope.step += 1
    gains = trained(running).log() - torch.tensor([0.2, 0.3, 0.5]).log()
    assert gains[0] > 0.5 > 0 > gains[1]
    assert gains[2] < 0


def test_xpo_without_optimism_is_dpo_and_with_it_leaves_the_reference(made: Made, tmp_path: Path) -> None:
    rollout = {"use": "population", "task": ARMS, "opponent": 1}

    def run(update: dict[str, Any]) -> torch.Tensor:
        return trained(loop(made, tmp_path, ARMS, rollout=rollout, update={"beta": 0.5, **ADAM, **update}, steps=100))

    plain, same, bold = run({"use": "dpo"}), run({"use": "xpo", "optimism": 0.0}), run({"use": "xpo", "optimism": 0.1})
    assert torch.equal(plain, same)
    reference = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    assert float(reference @ bold.log()) < float(reference @ plain.log()) - 0.01


@pytest.mark.parametrize(
    "update", [{"use": "orpo"}, {"use": "simpo"}, {"use": "dpo", "loss": "hinge"}, {"use": "dpo", "loss": "sppo"}]
)
def test_the_better_arm_gains(made: Made, tmp_path: Path, update: dict[str, Any]) -> None:
    gains = trained(loop(made, tmp_path, ARMS, update={**update, "lr": 0.05}, steps=40)).log()
    gains -= torch.tensor([0.2, 0.3, 0.5]).log()
    assert gains[0] > 0 > gains[2]


def test_best_of_n_climbs_and_a_bar_nobody_passes_trains_nothing(made: Made, tmp_path: Path) -> None:
    population = {"use": "population", "task": ARMS}
    assert trained(loop(made, tmp_path, ARMS, rollout=population, update={"use": "best-of-n", **ADAM}, steps=60))[0] > 0.9  # fmt: skip
    update = {"use": "best-of-n", "keep": "threshold", "threshold": 1.0, **ADAM}
    idle = loop(made, tmp_path, ARMS, rollout=population, update=update, steps=3)
    assert trained(idle).tolist() == pytest.approx([0.2, 0.3, 0.5], abs=1e-6)


# -- comparisons in a batch


def scored(made: Made, folder: Path, task: str = CYCLIC) -> tuple[PhaseLoop, Scored]:
    running = loop(made, folder, task, update={"use": "dpo"}, steps=2)
    return running, running.hooks.score(running.ctx, running.hooks.rollout(running.ctx))


def test_a_population_is_exact(made: Made, tmp_path: Path) -> None:
    _, batch = scored(made, tmp_path)
    assert batch.extra["weight_B"].tolist() == pytest.approx(REFERENCE)
    assert batch.extra["preference_B"].flatten().tolist() == pytest.approx([p for row in BEATS for p in row])
    found = comparisons(batch)
    assert float(found.weight.sum()) == pytest.approx((1 - sum(p * p for p in REFERENCE)) / 2)
    assert found.preferred.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert [batch.response_text(int(i)) for i in found.chosen] == ["rock", "paper", "scissors"]


def test_the_order_of_rows_changes_no_comparison(made: Made, tmp_path: Path) -> None:
    _, batch = scored(made, tmp_path)
    order = torch.tensor([2, 0, 1])
    turned = batch.rows(order)
    turned = replace(turned, extra={**turned.extra, "preference_B": turned.extra["preference_B"][:, order]})

    def said(of: Scored) -> set[tuple[str, str, float, float]]:
        c = comparisons(of)
        text = [of.response_text(row) for row in range(len(of))]
        return {
            (text[a], text[b], round(p, 5), round(w, 5))
            for a, b, p, w in zip(c.chosen.tolist(), c.rejected.tolist(), c.preferred.tolist(), c.weight.tolist())
        }

    assert said(batch) == said(turned)


def test_a_row_lost_after_labelling_is_noticed(made: Made, tmp_path: Path) -> None:
    _, batch = scored(made, tmp_path)
    with pytest.raises(PluginError, match="do not drop rows of a group after the group was labelled"):
        comparisons(batch.rows([1, 2]))


def test_without_labels_the_reward_decides_and_ties_are_left_out(made: Made, tmp_path: Path) -> None:
    _, batch = scored(made, tmp_path, ARMS)
    plain = replace(batch, extra={}, reward_BT=batch.reward_BT * torch.tensor([[1.0], [0.0], [0.0]]))
    found = comparisons(plain)
    assert found.chosen.tolist() == [0, 0]
    assert found.rejected.tolist() == [1, 2]
    assert prepared(plain).extra["comparisons_B"].tolist() == [2.0, 0.0, 0.0]
    tied = replace(plain, reward_BT=torch.zeros_like(plain.reward_BT))
    assert len(prepared(tied)) == 0


def test_soft_labels_are_what_coins_show_on_average(made: Made, tmp_path: Path) -> None:
    running, _ = scored(made, tmp_path, ARMS)
    generate = {"use": "generate", "prompts": ARMS, "rows": 1, "samples_per_prompt": 64, "max_new_tokens": 2}
    tables = {}
    for labels in ("soft", "sampled"):
        wrap = [{"use": "preference", "labels": labels, "temperature": 0.5}]
        phase = {"rollout": generate, "reward": PAID, "wrap": wrap, "update": "dpo"}
        running = loop(made, tmp_path, ARMS, **phase, steps=1)
        batch = running.hooks.score(running.ctx, running.hooks.rollout(running.ctx))
        tables[labels] = batch.extra["preference_B"]
        assert torch.allclose(tables[labels] + tables[labels].T, torch.ones(64, 64))
    better = (tables["soft"] - 1 / (1 + math.exp(-2))).abs() < 1e-6  # one apart, at temperature ½
    assert better.sum() > 100
    assert float(tables["sampled"][better].mean()) == pytest.approx(1 / (1 + math.exp(-2)), abs=0.05)
    assert set(tables["sampled"].unique().tolist()) <= {0.0, 0.5, 1.0}


def test_a_duel_is_weighed_by_its_opponents() -> None:
    label = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    group = torch.zeros(3, dtype=torch.long)
    assert wins(label, torch.tensor([0.0, 0.0, 1.0]), group).tolist() == pytest.approx([0.2, 0.7, 0.5])
    assert wins(label, torch.tensor([0.0, 3.0, 1.0]), group).tolist() == pytest.approx([0.725, 0.55, 0.35])
    assert wins(label, torch.zeros(3), group).isnan().all()


def test_mismatched_answers_stand_behind_other_prompts(made: Made, tmp_path: Path) -> None:
    generate = {"use": "generate", "prompts": WALKS, "rows": 5, "samples_per_prompt": 3, "max_new_tokens": 10}
    judged = {"use": "task", "task": WALKS}
    running = loop(made, tmp_path, WALKS, rollout=generate, reward=judged, update="kto", steps=1)
    batch = running.hooks.score(running.ctx, running.hooks.rollout(running.ctx))
    other = mismatched(batch, 12)
    assert len(other) == 15
    own = {int(s): batch.prompt_text(i) for i, s in enumerate(batch.sample_B)}
    assert all(other.prompt_text(i) != own[int(s)] for i, s in enumerate(other.sample_B))
    here, there = running.ctx.stats(batch).logprobs_BT, running.ctx.stats(other).logprobs_BT
    assert not torch.allclose(here.sum(1).sort().values, there.sum(1).sort().values)
    assert len(mismatched(batch, 3)) < 15  # what does not fit is left out


@pytest.mark.parametrize(("prompts", "kept"), [((7, 7, 7, 8), 2), ((7, 7, 8, 8), 4), ((7, 7, 7, 7), 4)])
def test_no_answer_stands_behind_its_own_prompt(
    made: Made, tmp_path: Path, prompts: tuple[int, ...], kept: int
) -> None:
    """A group of more than half of the rows meets itself: such rows are left out. One prompt alone stays as it is."""
    _, batch = scored(made, tmp_path)
    names = torch.tensor(prompts)
    few = replace(batch.rows([0, 1, 2, 0]), prompt_ids_BP=names[:, None], prompt_length_B=torch.ones(4).long())
    few = replace(few, sample_B=torch.arange(4))
    own = dict(enumerate(prompts))
    other = mismatched(replace(few, group_B=names), 99)
    assert len(other) == kept
    if len(set(prompts)) > 1:
        assert all(other.prompt_ids(i) != [own[int(s)]] for i, s in enumerate(other.sample_B))


def test_a_duels_greedy_answers_are_not_the_policys_draws(made: Made, tmp_path: Path) -> None:
    rollout = {"use": "duel", "prompts": ARMS, "rows": 3, "max_new_tokens": 1, "greedy": True}
    running = loop(made, tmp_path, ARMS, rollout=rollout, reward=PAID, update={"use": "dpo", "beta": 1.0}, steps=1)
    batch = running.hooks.rollout(running.ctx)
    weight = dict.fromkeys(batch.source, 0.0) | {"policy": 1.0}
    assert set(weight) == {"policy", "greedy", "opponent"}
    assert batch.extra["weight_B"].tolist() == [weight[source] for source in batch.source]
    assert batch.extra["opponent_B"].tolist() == [float(source == "opponent") for source in batch.source]


@pytest.mark.parametrize("update", ["best-of-n", "distill"])
def test_what_top_k_left_out_loses_mass(made: Made, tmp_path: Path, update: str) -> None:
    """With top_k 1 an answer is certain among what was kept; learning from it still moves the rest down."""
    rollout = {"use": "generate", "prompts": ARMS, "rows": 4, "samples_per_prompt": 2, "max_new_tokens": 1, "top_k": 1}
    running = loop(made, tmp_path, ARMS, rollout=rollout, reward=PAID, update={"use": update, "lr": 0.1}, steps=3)
    before = arms_of(running)
    for _ in range(3):
        running.step()
        running.phase.scope.step += 1
    after = arms_of(running)
    assert after.max() > before.max() + 0.02


def arms_of(running: PhaseLoop) -> torch.Tensor:
    process = running.ctx.task(ARMS).process()
    assert process is not None
    return torch.tensor(list(policy_of(running.ctx, process)(process.starts()[0][1]).values()))


# -- what cannot work is refused before a weight is loaded


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollout": {"use": "dataset", "path": f"{ARMS}/answers"}, "reward": PAID}, "'dpo' needs several answers"),
        (
            {"update": {"use": "nash-md"}, "rollout": {"use": "duel", "prompts": ARMS}, "reward": PAID},
            "'nash-md' needs 'preference_B'",
        ),
        (
            {
                "update": {"use": "dpo", "loss": "plackett-luce"},
                "rollout": {"use": "duel", "prompts": ARMS, "max_new_tokens": 1},
                "reward": PAID,
            },
            "but these rows have the column opponent_B",
        ),
        (
            {"update": "distill", "rollout": {"use": "generate", "prompts": ARMS, "greedy": True, "max_new_tokens": 1}},
            "'distill' would learn from greedy answers",
        ),
        ({"update": {"use": "dpo", "flips": 0.1}}, "give both"),
        ({"update": {"use": "dpo", "loss": "robust"}}, "give both"),
        ({"rollout": {"use": "population", "task": "builtin:keywords"}}, "no process|needs"),
    ],
)
def test_what_cannot_work_is_refused(made: Made, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        loop(made, tmp_path, ARMS, **{"update": "dpo", "steps": 1, **changes})


def test_rankings_do_not_read_soft_labels(made: Made, tmp_path: Path) -> None:
    update = {"use": "dpo", "loss": "plackett-luce"}
    rollout = {"use": "generate", "prompts": ARMS, "rows": 2, "samples_per_prompt": 2, "max_new_tokens": 1}
    running = loop(made, tmp_path, ARMS, update=update, rollout=rollout, reward=PAID, wrap="preference", steps=1)
    with pytest.raises(PluginError, match="these rows have soft labels"):
        running.step()


def test_a_population_too_large_to_enumerate_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(hookline.DataError, match="more than 1024 answers"):
        loop(made, tmp_path, WALKS, update="dpo", steps=1)


@pytest.mark.parametrize("against", ["recorded", "gold"])
def test_a_pair_without_an_opinion_is_chance(against: str) -> None:
    """Equal rewards of the model count ½; what the judge left tied is not a question."""
    component: Any = PairAccuracy(PairAccuracy.Config(against=against))
    reward_B = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 4.0])
    judged_B = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])

    class Rows(SimpleNamespace):
        def __len__(self) -> int:
            return 8

    rollout: Any = Rows(
        extra={"recorded_B": judged_B, "gold_B": judged_B},
        mask_BT=torch.ones(8, 1, dtype=torch.bool),
        group_B=torch.arange(8) // 2,
    )
    ctx: Any = SimpleNamespace(stats=lambda *_, **__: {"reward": reward_B[:, None]})
    term = component.hookline_reward(ctx, rollout)
    assert term.value[::2].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert term.ok_B[::2].tolist() == [True, True, True, False]
