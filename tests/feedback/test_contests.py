"""Two models judged on the same prompts: the figures are those of their functions, may be looked at after every answer, and
say who said what."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hookline
from hookline import Candidate, Comparison, DataError, Event, Item, Producer, Rating, Skip, Store
from hookline.cli import main
from hookline.study.judging.contest import seed_scores
from hookline.study.judging.entrants import _Asked, _Entrant, _items, contest_items
from judging_server import part, says, serving

NAMES = ["old", "new"]


def item(prompt: int, *, texts: Sequence[str] = ("aa", "bbbb"), of: int | None = None, seed: int = 0, overlap: int = 1) -> Item:
    by = [Candidate(text=text, by=Producer(name=name)) for text, name in zip(texts, NAMES)]
    about = {"between": NAMES, "seed": seed, "runs": ["", ""], "prompt": str(prompt), "identical": 0}
    return Item(
        id=f"{seed}/{prompt}/{of}", prompt=f"question {prompt}", overlap=overlap,
        candidates=tuple(by if of is None else [by[of]]), extra={"contest": about if of is None else {**about, "of": of}},
    )  # fmt: skip


def say(about: Item, score: float | str, who: str = "ann", **more: Any) -> Event:
    better: Any = {1.0: 1, 0.0: 0, 0.5: "tie"}.get(score, score)  # type: ignore[call-overload]
    return about.event(Comparison(better=better), who, **more)


def mark(about: Item, who: str = "ann", **marks: float) -> Event:
    return about.event(Rating(marks=marks), who)


def read(items: Sequence[Item], events: Sequence[Event]) -> Any:
    [found] = hookline.contests(items, events)
    return found


def test_every_figure_is_that_of_its_function() -> None:
    rng = np.random.default_rng(1)
    score_G = rng.choice([0.0, 0.5, 1.0], 60, p=[0.25, 0.15, 0.6])
    longer_G = rng.integers(-30, 30, 60)
    items = [item(i, texts=("a" * 40, "b" * (40 + n))) for i, n in enumerate(longer_G)]
    events = [say(one, score) for one, score in zip(items, score_G)]
    found = read(items, events)
    assert (found.baseline, found.other, found.asked) == ("old", "new", 60)
    [people] = found.preferred
    counted = [int((score_G == score).sum()) for score in (1, 0.5, 0)]
    assert [people.wins, people.ties, people.losses] == counted
    assert people.rate == hookline.interval(score_G, np.ones(60))
    assert people.test == hookline.always_valid(score_G)
    assert (people.length_controlled, people.length) == hookline.length_controlled(score_G, longer_G)
    assert people.state == "stop: new is better"
    assert people.by == "people"
    assert people.answers == people.prompts == 60


def test_a_prompt_counts_once_however_many_judge_it_and_when_all_have() -> None:
    items = [item(i, overlap=2) for i in range(3)]
    events = [
        say(items[0], 1.0, "ann"), say(items[1], 1.0, "ann"), say(items[1], 0.0, "bob"), say(items[0], 1.0, "bob"),
        say(items[2], 1.0, "ann"),
    ]  # fmt: skip
    [people] = read(items, events).preferred
    assert people.answers == 5
    assert (people.prompts, people.wins, people.ties) == (3, 2, 1)
    assert people.rate.value == pytest.approx((1 + 0.5 + 1) / 3)
    assert people.test == hookline.always_valid([0.5, 1.0]), "prompt 1 was complete first, and prompt 2 is not"
    assert people.agreement == hookline.agreement(events)


def test_replaced_answers_keep_their_place_and_skips_repeats_and_decisions_count_as_they_should() -> None:
    items = [item(i) for i in range(4)]
    first = say(items[0], 0.0, id="first")
    events = [
        first, say(items[1], 1.0), items[2].event(Skip(), "ann"), say(items[2], 0.5, "bob"),
        say(items[0], 1.0, id="second", supersedes="first"), say(items[1], 0.0, id="again", repeats="x"),
        say(items[3], 0.0, "cat"), say(items[3], 1.0, "chief", decides=True),
    ]  # fmt: skip
    [people] = read(items, events).preferred
    assert people.test == hookline.always_valid([1.0, 1.0, 0.5, 1.0])
    assert people.answers == 4


def test_both_bad_is_half_a_win_and_is_counted() -> None:
    items = [item(i) for i in range(2)]
    [people] = read(items, [say(items[0], "both-bad"), say(items[1], 1.0)]).preferred
    assert (people.both_bad, people.rate.value) == (1, 0.75)


def test_prompts_that_were_answered_alike_are_ties_in_a_figure_of_their_own() -> None:
    items = [item(i) for i in range(4)]
    alike = [one.model_copy(update={"extra": {"contest": {**one.extra["contest"], "identical": 4}}}) for one in items]
    [people] = read(alike, [say(one, 1.0) for one in alike]).preferred
    assert (people.rate.value, people.with_identical) == (1.0, 0.75)


# -- looked at after every answer


@cache
def log_betas(N: int) -> np.ndarray[Any, Any]:
    """[n, 2w]: log B(w + ½, n − w + ½)."""
    return np.array([[math.lgamma(w / 2 + 0.5) + math.lgamma(n - w / 2 + 0.5) - math.lgamma(n + 1) if w <= 2 * n else 0
                      for w in range(2 * N + 1)] for n in range(N + 1)])  # fmt: skip


def peeked(score_RN: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[R]: whether each of R series of answers is decided at some time, by the formula of `always_valid`, all at once."""
    N = score_RN.shape[1]
    n = np.arange(1, N + 1)
    twice = (2 * score_RN.cumsum(1)).astype(int)
    wealth = log_betas(N)[n[None], twice] - 2 * math.lgamma(0.5) + n * math.log(2)
    return np.asarray(wealth.max(1) >= math.log(20))


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_of_contests_of_equal_models_at_most_one_in_twenty_is_ever_decided(ties: float) -> None:
    """400 looks at each of 4000: the true share is 3.5 % without ties, so that of 200 alone would vary from 1 to 6 %."""
    rng = np.random.default_rng(0)
    score_RN = rng.choice([0, 0.5, 1], (4000, 400), p=[(1 - ties) / 2, ties, (1 - ties) / 2])
    decided_R = peeked(score_RN)
    assert decided_R.mean() <= 0.05
    for decided, score_N in list(zip(decided_R, score_RN))[:3]:
        items = [item(i) for i in range(400)]
        [people] = read(items, [say(one, score) for one, score in zip(items, score_N)]).preferred
        assert (people.test.decided_at is not None) == decided
        assert decided == people.state.startswith("stop")


def test_the_power_that_the_page_states() -> None:
    """Of 40 000 contests each; the page states whole percents, and two standard errors are at most 0.4 more."""
    rng = np.random.default_rng(8)
    page = (Path(__file__).resolve().parents[2] / "docs/contests.md").read_text(encoding="utf-8")
    for rate in (0.5, 0.55, 0.6, 0.65):
        power = np.mean([peeked((rng.random((4000, 400)) < rate).astype(float)).mean() for _ in range(10)])
        [stated] = re.findall(rf"^\| {100 * rate:.0f} % \| (\d+) % \|$", page, re.MULTILINE)
        assert abs(100 * power - int(stated)) < 0.5 + 200 * math.sqrt(power * (1 - power) / 40_000)


def test_what_to_do_next() -> None:
    items = [item(i) for i in range(12)]

    def state(scores: Sequence[float], of: int = 12) -> str:
        return str(read(items[:of], [say(one, score) for one, score in zip(items, scores)]).preferred[0].state)

    assert state([1.0, 0.0]) == "go on"
    assert state([1.0] * 8) == "stop: new is better"
    assert state([0.0] * 8) == "stop: old is better"
    assert state([1.0] * 8 + [0.0] * 4) == "stop: new is better", "what was decided stays so"
    assert state([0.0, 1.0] * 3) == "cannot tell within 12", "six more wins in a row would not be enough"
    assert state([1.0, 0.0], of=2) == "cannot tell within 2"


# -- marks, judges, several models and seeds


def test_marks_are_paired_by_prompt() -> None:
    rng = np.random.default_rng(3)
    old_G, new_G = rng.integers(1, 5, 30).astype(float), rng.integers(2, 6, 30).astype(float)
    items = [item(i, of=of) for i in range(30) for of in (0, 1)]
    events = [
        mark(items[2 * i + of], who, helpful=side_G[i], short=3.0)
        for i in range(30) for of, side_G in enumerate((old_G, new_G)) for who in ("ann", "bob")
    ]  # fmt: skip
    found = read(items, events[:-2])  # the last answer of the new model has no marks
    helpful, short = found.marked
    ones = np.ones(29)
    assert (helpful.axis, short.axis, helpful.prompts, found.asked) == ("helpful", "short", 29, 30)
    assert helpful.difference == hookline.interval(new_G[:29], ones, minus=(old_G[:29], ones))
    assert helpful.other == hookline.interval(new_G[:29], ones)
    assert helpful.baseline == hookline.interval(old_G, np.ones(30)), "every mark counts for the model's own mean"
    assert helpful.agreement.value == 1.0
    assert (short.difference.value, short.test.rate) == (0.0, 0.5)


def test_a_judge_is_apart_from_people_and_compared_with_them() -> None:
    items = [item(i) for i in range(40)]
    people_G = np.array([1.0] * 25 + [0.0] * 15)
    judge_G = np.array([1.0] * 20 + [0.0] * 20)
    events = [say(one, score) for one, score in zip(items, people_G)]
    events += [say(one, score, "judge:j", role="model") for one, score in zip(items, judge_G)]
    found = read(items, events)
    assert [(one.by, one.rate.value) for one in found.preferred] == [("people", 25 / 40), ("judge:j", 0.5)]
    [same] = found.sameness
    assert (same.judge, same.what, same.prompts, same.same.value) == ("judge:j", "comparison", 40, 35 / 40)
    assert same.agreement.value == hookline.krippendorff(np.stack([people_G, judge_G]), "nominal").value


@pytest.mark.parametrize("decided", [0, 4, 6])
def test_what_people_decide_leaves_the_answers_of_judges_as_they_are(decided: int) -> None:
    """People disagree about what is decided, so that a judge's figures over the rest would be about easy prompts alone."""
    items = [item(i, overlap=2) for i in range(6)]
    people = [say(one, score, who) for one in items for score, who in ((0.0, "ann"), (1.0, "bob"))]
    judge = [say(one, float(i % 2), "judge:j", role="model") for i, one in enumerate(items)]
    chief = [say(one, 0.0, "chief", decides=True) for one in items[:decided]]
    found = read(items, [*people, *judge, *chief])
    by = {one.by: one for one in found.preferred}
    assert (by["people"].answers, by["people"].losses) == (12 - decided, decided)
    assert (by["judge:j"].answers, by["judge:j"].rate.value) == (6, 0.5)
    [same] = found.sameness
    assert (same.judge, same.prompts) == ("judge:j", 6)
    assert same.same.value == pytest.approx(len(range(0, decided, 2)) / 6)


def test_a_large_contest_is_read_in_time_that_grows_with_its_answers() -> None:
    def time_of(count: int) -> float:
        values = {(0, str(i)): 0.5 for i in range(count)}
        begun = time.process_time()
        seed_scores(values)
        return time.process_time() - begun

    assert min(time_of(20_000) for _ in range(3)) < 20 * min(time_of(2000) for _ in range(3)) + 0.05


def test_several_seeds_are_drawn_beside_the_prompts() -> None:
    rng = np.random.default_rng(4)
    score_SG = rng.choice([0.0, 1.0], (3, 20))
    items = [item(g, seed=s) for s in range(3) for g in range(20)]
    found = read(items, [say(one, score) for one, score in zip(items, score_SG.ravel())])
    [people] = found.preferred
    assert (found.asked, people.prompts) == (60, 60)
    assert people.rate.value == pytest.approx(score_SG.mean(), abs=0.03)
    assert people.rate.low < people.rate.value < people.rate.high


def test_fewer_than_two_answers_and_no_contest_are_said() -> None:
    with pytest.raises(DataError, match="no items of a contest"):
        hookline.contests([Item(prompt="p", candidates=(Candidate(text="a"),))], [])
    with pytest.raises(DataError, match="has no answer about"):
        hookline.contests([item(0)], [])
    with pytest.raises(DataError, match="has 1 answer about"):
        hookline.contests([item(0)], [say(item(0), 1.0)])


# -- from runs to a report

WALKS: dict[str, Any] = {
    "name": "w", "seed": 1, "threads": 1, "trackers": [], "device": "cpu",
    "tokenizer": {"train": "words", "on": "builtin:walks/walks"},
    "model": {"build": "tabular", "task": "builtin:walks", "sees": ["position", "last"], "context": 12},
    "phases": [{
        "name": "rl", "steps": 6,
        "rollout": {"use": "generate", "prompts": "builtin:walks", "rows": 8, "samples_per_prompt": 4, "max_new_tokens": 10},
        "reward": {"use": "task", "task": "builtin:walks"}, "update": {"use": "rloo", "lr": 0.3},
        "evaluate": [{"name": "walks", "rows": 80, "every": 6, "reward": [{"use": "task", "task": "builtin:walks"}]}],
    }],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    for name, overrides in (("old", ["phases.rl.update.lr=0.0001"]), ("new", [])):
        hookline.run(WALKS, overrides, out=folder / name)
    for name in ("still", "fewer", "silent"):
        shutil.copytree(folder / "new", folder / name)
    _change(folder / "fewer", lambda samples: samples[:40])
    _change(folder / "silent", lambda samples: [{**sample, "response": ""} for sample in samples])
    return {name: str(folder / name) for name in ("old", "new", "still", "fewer", "silent")}


def _change(run: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change the samples of a run's evaluations."""
    file = run / "evaluations.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**line, "samples": change(line["samples"])}) + "\n" for line in lines))


def _alike_until(prompt: int, name: str, samples: list[Any]) -> list[Any]:
    """One sample of each prompt, answered by all models alike up to a prompt."""
    firsts = {sample["group"]: sample for sample in reversed(samples)}.values()
    return [{**one, "response": f"r{i}{name if i >= prompt else ''}"} for i, one in enumerate(firsts)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "eval.jsonl")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["contest", *words]) == 0
    return capsys.readouterr().out


def by_length(question: str) -> str:
    """Prefers the shorter answer."""
    one, two = (len(part(question, name)) for name in ("answer-A", "answer-B"))
    return says(question, better="A" if one < two else "B" if two < one else "tie")


def test_runs_become_items_that_people_and_a_judge_answer(
    runs: Mapping[str, str], url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = said(capsys, runs["old"], runs["new"], "--store", url)
    assert "new against old" in out
    with hookline.store(url) as store:
        items = list(store.items())
        for one in items:
            assert one.extra["ask"] == {"kind": "comparison"}
            assert [str(each.by and each.by.name) for each in one.candidates] == NAMES
            assert all(each.by and len(each.by.weights) == 16 and each.by.run and each.by.step == 6 for each in one.candidates)
        assert len({one.id for one in items}) == len(items) > 10
        while (waiting := store.lease("ann")) is not None:
            shorter = min((0, 1), key=lambda place: len(waiting.candidates[place].text))
            store.append([waiting.event(Comparison(better=shorter), "ann")])
    assert "0 new" in said(capsys, runs["old"], runs["new"], "--store", url), "the same command puts nothing twice"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(by_length) as service:
        judge = ["judge", url, "--model", "j", "--url", service.url]
        assert main([*judge, "--answers", "3"]) == 0
        assert main(judge) == 0
        assert service.asked == 2 * len(items), "both orders, and none twice"
        assert main(judge) == 0
        assert service.asked == 2 * len(items)
    capsys.readouterr()
    assert main(["contest", "--store", url, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    people, machine = found["preferred"]
    assert (people["by"], machine["by"]) == ("people", "judge:j")
    assert people["prompts"] == machine["prompts"] == len(items) == found["asked"]
    assert found["sameness"][0]["same"]["value"] > 0.7, "they differ where both answers are equally long"
    shown = said(capsys, "--store", url)
    assert "people: " in shown
    assert "win rate" in shown
    assert "as people" in shown


def test_a_judge_beside_people_takes_no_place_of_theirs(tmp_path: Path) -> None:
    for url in (str(tmp_path / "a.jsonl"), f"sqlite:///{tmp_path / 'a.db'}"):
        with hookline.store(url) as store:
            store.put([item(0)])
            store.append([say(item(0), 1.0, "judge:j", role="model")])
            assert store.counts().complete == 0
            taken = store.lease("ann")
            assert taken is not None
            store.append([say(taken, 0.0)])
            store.append([say(item(0), 1.0, "judge:k", role="model")])
            assert store.counts().complete == 1
            assert store.verify().counts == store.counts()


def test_marks_are_asked_of_each_answer_by_itself_and_judged(
    runs: Mapping[str, str], url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--ask", "rating", "--axes", "brief", "--axes", "honest", "--rows", "5"]
    said(capsys, runs["old"], runs["new"], "--store", url, *asked)
    with hookline.store(url) as store:
        items = list(store.items())
    assert len(items) == 10
    assert {len(one.candidates) for one in items} == {1}
    assert items[0].extra["ask"] == {"kind": "rating", "axes": ["brief", "honest"]}
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(lambda question: says(question, brief=5 if len(part(question, "answer")) < 20 else 2, honest=3.2)) as service:
        assert main(["judge", url, "--model", "j", "--url", service.url]) == 0
    capsys.readouterr()
    shown = said(capsys, "--store", url)
    assert "judge:j, brief: " in shown
    assert "judge:j, honest: cannot tell within 5" in shown


def test_answers_can_be_drawn_anew(runs: Mapping[str, str], url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"n{i}"}) + "\n" for i in range(1, 7)))
    drawn = ["--prompts", str(prompts), "--max-new-tokens", "8", "--rows", "4", "--device", "cpu"]
    out = said(capsys, f"A={runs['old']}", f"B={runs['new']}/phases/rl", "--store", url, *drawn)
    assert "B against A" in out
    with hookline.store(url) as store:
        assert {one.prompt for one in store.items()} <= {f"n{i}" for i in range(1, 7)}
        assert len(list(store.items())) <= 4


def test_min_p_reaches_the_models(runs: Mapping[str, str], tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"n{i}"}) + "\n" for i in range(1, 7)))
    named = [f"A={runs['old']}", f"B={runs['new']}"]

    def answers(**drawing: Any) -> list[tuple[str, ...]]:
        found = contest_items(named, prompts=str(prompts), max_new_tokens=8, device="cpu", **drawing)
        return sorted((one.prompt, *(each.text for each in one.candidates)) for one in found)

    assert answers(min_p=1.0) == answers(temperature=0) != answers()


def test_evaluations_that_drew_otherwise_are_not_compared(
    runs: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, code in (({"min_p": 0.0}, 0), ({"min_p": 0.3}, 3)):
        other = tmp_path / f"other-{code}"
        shutil.copytree(runs["new"], other)
        described = json.loads((other / "experiment.json").read_text())
        described["phases"][0]["rollout"]["options"] |= options
        (other / "experiment.json").write_text(json.dumps(described))
        assert main(["contest", runs["old"], str(other), "--store", str(tmp_path / f"{code}.jsonl")]) == code
    assert '"min_p": 0.3' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["{old}", "{fewer}"], 3, "were not evaluated on the same rows"),
        (["{old}"], 2, "between two models or more"),
        (["{old}", "{old}"], 2, "between two models or more"),
        (["x={old}", "x={new}"], 2, "two models are called 'x'"),
        (["{old}", "{new}", "--axes", "helpful"], 2, "--axes are marked in a rating"),
        (["{old}", "nowhere"], 4, "nowhere is not a run directory"),
    ],
)
def test_what_cannot_be_compared_is_said(
    runs: Mapping[str, str], url: str, words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["contest", *(word.format(**runs) for word in words), "--store", url]) == code
    assert sentence in capsys.readouterr().err


def test_a_store_is_for_one_contest(runs: Mapping[str, str], url: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, runs["old"], runs["new"], "--store", url)
    assert main(["contest", runs["old"], runs["new"], "--store", url, "--rows", "3"]) == 3
    assert "the same contest with other prompts, weights or questions" in capsys.readouterr().err
    assert main(["contest", runs["new"], runs["old"], "--store", url]) == 3
    assert "another contest: 'new' against 'old'" in capsys.readouterr().err
    assert main(["contest", "--store", url + "x.jsonl"]) == 3


def test_prompts_that_seeds_answered_alike_are_counted_over_all_seeds(
    runs: Mapping[str, str], tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three seeds, which answered 20, 8 and 12 of 20 prompts alike: the first has nothing to be judged."""
    for seed, alike in ((1, 20), (2, 8), (3, 12)):
        for name in NAMES:
            folder = tmp_path / name / str(seed)
            shutil.copytree(runs[name], folder)
            for file in ("experiment.json", "run.json"):
                about = json.loads((folder / file).read_text())
                about |= {"seed": seed} if file == "experiment.json" else {"id": f"{about['id']}{seed}"}
                (folder / file).write_text(json.dumps(about))
            _change(folder, partial(_alike_until, alike, name))
    out = said(capsys, str(tmp_path / "old"), str(tmp_path / "new"), "--store", url)
    assert "40 prompts were answered alike" in out
    with hookline.store(url) as store:
        items = list(store.items())
        store.append([say(one, 1.0) for one in items])
        [found] = hookline.contests(items, store.events())
    assert (len(items), found.asked, found.identical) == (20, 20, 40)
    assert found.preferred[0].with_identical == pytest.approx((20 + 40 / 2) / 60)


def test_an_item_is_another_one_if_other_weights_wrote_its_answers() -> None:
    asked = {i: _Asked(f"question {i}", {}) for i in range(3)}

    def ids(*weights: str) -> set[str]:
        old, new = (_Entrant(name, 1, Producer(name=name, weights=one), tuple("abc" if name == "old" else "xyz"))
                    for name, one in zip(NAMES, weights))  # fmt: skip
        return {one.id for one in _items([(old, new)], asked, {}, 1)}

    first = ids("a", "b")
    assert len(first) == 3
    assert first == ids("a", "b")
    for others in (("a", "c"), ("c", "b"), ("b", "a")):
        assert not first & ids(*others)


def test_models_that_answer_alike_or_nothing_are_refused(runs: Mapping[str, str]) -> None:
    with pytest.raises(DataError, match="answered every prompt alike"):
        contest_items([f"a={runs['new']}", f"b={runs['still']}"])
    with pytest.raises(DataError, match="all answers of silent are empty"):
        contest_items([runs["old"], runs["silent"]])


def test_nobody_learns_which_model_wrote_what(runs: Mapping[str, str], tmp_path: Path) -> None:
    from hookline_plugins.page.desk import Desk

    store: Store
    with hookline.store(str(tmp_path / "a.jsonl")) as store:
        hookline.put_contest(store, [f"secret-a={runs['old']}", f"secret-b={runs['new']}"])
        ids = {hookline.Run.read(runs[name]).id for name in NAMES}
        desk = Desk(store, b"s" * 32)
        for who in ("ann", "bob", "cat"):
            asked = json.dumps(desk.next(who))
            assert "secret" not in asked
            assert not any(name in asked for name in ids)
