"""Sources of feedback beside people: a judge over HTTP, a program, and answers that arrive from elsewhere."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Comparison, DataError, Event, ExperimentError, Ranking, Thumb
from hookline_plugins.feedback.verifier import Verifier
from judging_server import Sent, part, says, serving

SAMPLES = {"use": "generate", "prompts": "builtin:keywords", "rows": 4, "samples_per_prompt": 4, "max_new_tokens": 4}
LONGER = "def longer(completions, **columns):\n    return [float(len(text)) for text in completions]\n"


def experiment(*feedback: dict[str, Any], rounds: int = 1, **phase: Any) -> dict[str, Any]:
    asks = {"name": "ask", "rollout": SAMPLES, "feedback": list(feedback), "steps": 2, **phase}
    return {
        "name": "sources", "seed": 1, "threads": 1, "trackers": [],
        "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 64},
        "phases": [{"repeat": rounds, "phases": [asks]}] if rounds > 1 else [asks],
    }  # fmt: skip


def longer(question: str) -> str:
    one, two = (part(question, name) for name in ("answer-A", "answer-B"))
    return says(question, better="tie" if len(one) == len(two) else "A" if len(one) > len(two) else "B")


def judge(url: str, **options: Any) -> dict[str, Any]:
    return {"use": "judge", "url": url, "model": "m", "backoff": 0.01, "tries": 1, **options}


def events_of(run: hookline.Run, phase: str = "ask") -> list[Event]:
    return [Event.read(record, "an event") for record in run.collected(phase).records]


def test_a_judge_compares_and_a_reward_model_learns_from_it(tmp_path: Path) -> None:
    with serving(longer) as service:
        made = experiment(judge(service.url))
        made["phases"].append({
            "name": "judge", "model": {"head": "reward"}, "rollout": {"use": "preferences", "from": "ask", "rows": 2},
            "update": {"use": "bradley-terry", "lr": 1e-3}, "steps": 2,
        })  # fmt: skip
        run = hookline.run(made, out=tmp_path / "run")
        asked = service.asked
        hookline.reproduce(run)
        assert service.asked == asked, "what is in the journal is not asked again"
    events = events_of(run)
    assert len(events) == 8
    for event in events:
        assert (event.annotator, event.role, event.source) == ("m", "model", "judge")
        first, second = (len(one.text) for one in event.candidates)
        better = "tie" if first == second else int(second > first)
        assert event.answer == Comparison(better=better)  # type: ignore[arg-type]
        assert event.candidates[0].by is not None
        assert event.candidates[0].token_ids
    assert asked <= 16, "two orders of eight pairs"
    assert run.rows()[0]["metrics"]["judge/judge/requests"] > 0


def test_a_judge_that_prefers_a_position_ties_and_one_that_fails_judges_nothing(tmp_path: Path) -> None:
    with serving(lambda question: says(question, better="A")) as service:
        run = hookline.run(experiment(judge(service.url)), out=tmp_path / "first")
        assert {event.answer.better for event in events_of(run)} == {"tie"}  # type: ignore[union-attr]
        assert run.rows()[0]["metrics"]["judge/judge/disagreement"] == 1
    with serving(lambda question: Sent(status=500)) as service:
        run = hookline.run(experiment(judge(service.url)), out=tmp_path / "fails")
        assert run.rows()[0]["metrics"]["judge/judge/failures"] > 0
        with pytest.raises(DataError, match="collected no judgements"):
            run.collected("ask")
    with serving(lambda question: Sent(status=401)) as service, pytest.raises(hookline.ServiceError, match="401"):
        hookline.run(experiment(judge(service.url)), out=tmp_path / "key")


def test_a_judge_rates_a_share_of_the_prompts(tmp_path: Path) -> None:
    with serving(lambda question: says(question, helpful=2.5, brief=4)) as service:
        axes = {"helpful": "how helpful it is", "brief": "how brief it is"}
        one = judge(service.url, kind="rating", axes=axes, scale=[0, 5], share=0.5)
        run = hookline.run(experiment(one, steps=8), out=tmp_path / "run")
    events = events_of(run)
    assert {tuple(event.answer.marks.items()) for event in events} == {(("helpful", 2.5), ("brief", 4.0))}  # type: ignore[union-attr]
    assert 4 <= len({(str(event.prompt), event.candidates[0].by.step) for event in events if event.candidates[0].by}) <= 28


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "rating", "scale": [10, 1]}, "`scale` whose first number is not below its second"),
        ({"kind": "rating", "axes": {"code": "how well it is written"}}, "has an axis 'code'"),
        ({"kind": "rating", "axes": {"a b": "x"}}, "has an axis 'a b'; its name must be letters"),
        ({"kind": "rating", "axes": {"a": "x", "b": "y"}, "pattern": "(?P<a>\\d) (\\d)"}, r"no group \(\?P<b>"),
        ({"question": "{{ first }} {{ second }} {{ verdict }} {{ topic }}"}, "no column 'topic', which the question of 'judge' names"),
    ],
)
def test_what_a_judge_could_not_answer_is_refused_before_anything_is_drawn(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with serving(longer) as service:
        with pytest.raises(hookline.HooklineError, match=sentence):
            hookline.run(experiment(judge(service.url, **options)), out=tmp_path / "run")
        assert service.asked == 0
    assert not list((tmp_path / "run").glob("phases/*"))


@pytest.mark.parametrize("kind", ["comparison", "ranking", "rating", "thumb"])
def test_a_program_says_what_the_rewards_say(kind: str, tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text(LONGER)
    reward = {"use": "function", "path": str(tmp_path / "checks.py"), "function": "longer"}
    verifier = {"use": "verifier", "kind": kind, "passes": 6, "scale": [0, 9]}
    run = hookline.run(experiment(verifier, reward=reward), out=tmp_path / "run")
    events = events_of(run)
    assert events
    for event in events:
        lengths = [len(one.text) for one in event.candidates]
        assert (event.annotator, event.role) == ("verifier", "model")
        match event.answer:
            case Comparison(better="tie"):
                assert lengths[0] == lengths[1]
            case Comparison(better=better):
                assert lengths[int(better)] == max(lengths)
            case Thumb(up=up):
                assert up == (lengths[0] >= 6)
            case answer if kind == "ranking":
                placed = [[lengths[i] for i in group] for group in answer.order]  # type: ignore[union-attr]
                assert all(len(set(group)) == 1 for group in placed)
                assert [group[0] for group in placed] == sorted({*lengths}, reverse=True)
            case answer:
                assert answer.marks == {"overall": min(lengths[0], 9)}  # type: ignore[union-attr]


def test_what_differs_by_little_is_as_good_and_marks_end_with_the_scale() -> None:
    def said(kind: str, worth: dict[int, float]) -> list[tuple[tuple[int, ...], Any]]:
        return list(Verifier(Verifier.Config(kind=kind, least=0.1, scale=(0, 1)))._answers(worth))

    worth = {0: 0.0, 1: 0.05, 2: -1.0}
    assert said("comparison", worth) == [((1, 2), Comparison(better=0))]
    assert said("comparison", {0: 0.0, 1: 0.05}) == [((0, 1), Comparison(better="tie"))]
    assert said("comparison", {0: 0.0, 1: 0.1}) == [((0, 1), Comparison(better="tie"))], "by no more than `least`"
    assert said("comparison", {0: 0.0, 1: 0.11}) == [((0, 1), Comparison(better=1))]
    assert said("ranking", worth) == [((0, 1, 2), Ranking(order=((1, 0), (2,))))]
    assert [answer.marks["overall"] for _, answer in said("rating", {0: -3.0, 1: 0.4, 2: 7.0})] == [0, 0.4, 1]


def test_a_verifier_needs_a_reward(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="reward"):
        hookline.run(experiment({"use": "verifier"}), out=tmp_path / "run")


def liked(name: str) -> Event:
    return Event(id=name, prompt="How?", candidates=({"text": f"So {name}."},), answer=Thumb(up=True), annotator="user")  # type: ignore[arg-type]


def test_answers_that_arrive_in_a_file_are_kept_once(tmp_path: Path) -> None:
    file, first = tmp_path / "answers.jsonl", tmp_path / "run/phases/ask@1/data.jsonl"

    def arrive() -> None:
        for number in range(4):
            while number == 2 and not first.exists():
                time.sleep(0.05)
            line = json.dumps(liked(f"e{number}").written()) + "\n"
            with file.open("a") as out:  # half of a line is there for a while
                out.write(line[:20])
                out.flush()
                time.sleep(0.15)
                out.write(line[20:])

    thread = threading.Thread(target=arrive)
    thread.start()
    source = {"use": "file", "path": str(file), "answers": 2, "at_most": "60s", "poll": 0.05}
    run = hookline.run(experiment(source, rounds=2), out=tmp_path / "run")
    thread.join()
    ids = [[event.id for event in events_of(run, f"ask@{number}")] for number in (1, 2)]
    assert ids == [["e0", "e1"], ["e2", "e3"]]
    assert all(event.source == "file" for event in events_of(run, "ask@1"))


def test_a_file_that_stays_unreadable_is_an_error_and_an_absent_one_is_an_empty_night(tmp_path: Path) -> None:
    run = hookline.run(experiment({"use": "file", "path": str(tmp_path / "none.jsonl")}), out=tmp_path / "night")
    assert run.rows()[-1]["metrics"]["arrived"] == 0
    file = tmp_path / "answers.jsonl"
    file.write_text('{"prompt": ')
    with pytest.raises(DataError, match=r"answers\.jsonl"):
        hookline.run(experiment({"use": "file", "path": str(file)}), out=tmp_path / "broken")
    with pytest.raises(ExperimentError, match="one of `path` and `store`"):
        hookline.run(experiment({"use": "file"}), out=tmp_path / "neither")


@pytest.mark.parametrize("store", [False, True])
def test_what_has_not_changed_is_not_read_again(store: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    where = f"sqlite:///{tmp_path / 'answers.db'}" if store else str(tmp_path / "answers.jsonl")
    if store:
        with hookline.store(where) as opened:
            opened.append([liked("a")])
            kind = type(opened)
            whole = kind.events
            monkeypatch.setattr(kind, "events", lambda *given, **how: reads.append(1) or whole(*given, **how))
    else:
        Path(where).write_text(json.dumps(liked("a").written()) + "\n")
        read = hookline.read_events
        monkeypatch.setattr(hookline, "read_events", lambda path: reads.append(1) or read(path))
    source = {"use": "file", "store" if store else "path": where, "answers": 2, "at_most": "2s", "poll": 0.02}
    run = hookline.run(experiment(source, steps=1), out=tmp_path / "run")
    assert [event.id for event in events_of(run)] == ["a"]
    assert len(reads) <= 2, "of some fifty looks"


def test_a_file_that_is_no_judgements_is_said_while_it_is_waited_for_and_may_be_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, notice = tmp_path / "answers.jsonl", hookline.Run.notice
    file.write_text('{"nonsense": 1}\n')

    def correct(run: hookline.Run, text: str) -> None:
        notice(run, text)
        if "answers.jsonl row 1" in text:
            file.write_text("".join(json.dumps(liked(name).written()) + "\n" for name in "ab"))

    monkeypatch.setattr(hookline.Run, "notice", correct)
    source = {"use": "file", "path": str(file), "answers": 2, "at_most": "60s", "poll": 0.05}
    finished = hookline.run(experiment(source), out=tmp_path / "run")
    assert [event.id for event in events_of(finished)] == ["a", "b"]
    [notice] = [one for one in finished.notices if "answers.jsonl row 1" in one]
    assert "phase 'ask' waits, and reads the file again when it is corrected" in notice


def test_people_a_judge_and_an_application_in_one_phase(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with hookline.store(url) as store:
        store.append([liked("from-the-application")])
    done = threading.Event()

    def person() -> None:
        with hookline.store(url) as store:
            while not done.is_set():
                if (item := store.lease("ann")) is not None:
                    store.append([item.event(Comparison(better=0), "ann", id=f"ann/{item.id}")])
                time.sleep(0.01)

    thread = threading.Thread(target=person, daemon=True)
    thread.start()
    with serving(longer) as service:
        people = {"use": "people", "store": url, "answers": 4, "at_most": "60s", "poll": 0.05}
        made = experiment(people, judge(service.url), {"use": "file", "store": url})
        run = hookline.run(made, out=tmp_path / "run")
        before = len(list(items_of(url)))
        hookline.reproduce(run)
    done.set()
    thread.join()
    events = events_of(run)
    by = {source: [event for event in events if event.source == source] for source in ("people", "judge", "file")}
    assert len(by["people"]) >= 4
    assert {event.annotator for event in by["people"]} == {"ann"}
    assert len(by["judge"]) == 8
    assert [event.id for event in by["file"]] == ["from-the-application"]
    assert len(list(items_of(url))) == before, "a run that is reproduced puts nothing into the store that people answer"


def items_of(url: str) -> list[Any]:
    with hookline.store(url) as store:
        return list(store.items())
