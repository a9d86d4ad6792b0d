"""`hookline judge`: what a judge is asked about the items of a store, what is refused before it is paid, and what is said afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Candidate, Comparison, Item, Rating
from hookline.cli import main
from judging_server import Sent, Service, part, says, serving, usual

KEY = "sk-Test-1234567890abcdefSECRET"
COMPARE = "{{ prompt }} {{ first }} {{ second }} {{ verdict }}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda question: says(question, better="A", overall=3)) as made:
        yield made


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "items.jsonl")


def item(*texts: str, ask: Any = None, name: str = "one", **record: Any) -> Item:
    return Item(
        id=name, prompt="Which?", candidates=tuple(Candidate(text=text) for text in texts), record=record,
        extra={} if ask is None else {"ask": ask},
    )  # fmt: skip


def put(url: str, *items: Item) -> None:
    with hookline.store(url) as store:
        store.put(items)


def answers(url: str) -> list[Any]:
    with hookline.store(url) as store:
        return [event.answer for event in store.events()]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--key", KEY), "--key must be the name of an environment variable"),
        (("--key", KEY.lower()), "--key must be the name of an environment variable"),
        (("--url", f"http://me:{KEY}@localhost/v1"), "--url must not hold a password"),
        (("--url", f"http://localhost/v1?key={KEY}"), "--url must not hold a password or a query"),
        (("--pattern", "Score: [0-9]"), "--pattern has no group"),
        (("--pattern", "("), "--pattern is not a regular expression"),
        (("--tries", "0"), "--tries is '0'; it must be at least 1"),
    ],
)
def test_a_wrong_option_is_one_sentence_that_repeats_no_key(
    url: str, options: tuple[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(url, item("a", "b"))
    given = {"--url": "http://localhost:1/v1", **dict([options])}
    assert main(["judge", url, "--model", "m", *(word for pair in given.items() for word in pair)]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert KEY.lower() not in (said.out + said.err).lower()
    assert "pydantic" not in said.err


def judge(url: str, service: Service, *words: str) -> int:
    return main(["judge", url, "--model", "m", "--url", service.url, *words])


def test_a_question_sees_the_row_that_an_item_comes_from(url: str, service: Service, tmp_path: Path) -> None:
    put(url, item("a", "b", topic="fruit", reference={"right": "pear"}))
    template = tmp_path / "question.txt"
    template.write_text(COMPARE + " {{ topic }} {{ reference }}")
    assert judge(url, service, "--template", str(template)) == 0
    for question in service.questions:
        assert part(question, "topic") == "fruit"
        assert part(question, "reference") == '{"right": "pear"}'


def test_the_built_in_question_shows_a_reference_answer(url: str, service: Service) -> None:
    put(url, item("a", reference="pear"), item("b", name="two"))
    assert judge(url, service) == 0
    with_one, without = sorted(service.questions, key=lambda question: "pear" not in question)
    assert part(with_one, "reference") == "pear"
    assert "A correct answer" not in without


def test_a_column_that_a_row_lacks_is_named_before_anything_is_paid(
    url: str, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(url, item("a", "b", topic="fruit"), item("a", "b", name="two", subject="fruit"))
    template = tmp_path / "question.txt"
    template.write_text(COMPARE + " {{ topic }}")
    assert judge(url, service, "--template", str(template)) == 3
    assert "item two: there is no column 'topic', which the question names; the row has subject" in capsys.readouterr().err
    assert service.asked == 0


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ({"kind": "rating", "low": "a"}, "item one: ask.low: Input should be a valid number"),
        ({"kind": "rating", "axes": "helpful"}, "item one: ask.axes: Input should be a valid tuple"),
        ({"kind": "rating", "low": 5, "high": 1}, "item one: ask: the scale from 5 to 1 by 1 has no marks"),
        ({"kind": "rating", "low": 0, "high": 1, "step": 0.6}, "the scale from 0 to 1 by 0.6 has no marks"),
        ({"kind": "guess"}, "item one: ask.kind"),
        ({"kind": "comparison"}, "item one: a comparison is asked about 1 candidate"),
    ],
)
def test_what_the_page_does_not_ask_a_judge_is_not_asked(
    url: str, service: Service, ask: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(url, item("a", ask=ask))
    assert judge(url, service) == 3
    assert sentence in capsys.readouterr().err
    assert service.asked == 0


def test_what_a_verdict_could_not_say_is_refused_before_it_is_paid(
    url: str, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    put(url, item("a", ask={"kind": "rating", "axes": ["code"]}))
    assert judge(url, service) == 2
    assert "a rating of code has an axis 'code'" in capsys.readouterr().err
    put(url + "2.jsonl", item("a", ask={"kind": "rating", "axes": ["short", "clear"]}))
    assert judge(url + "2.jsonl", service, "--pattern", "(?P<short>\\d) .* (\\d)") == 2
    assert "`pattern` has no group (?P<clear>…)" in capsys.readouterr().err
    assert service.asked == 0


def test_marks_are_those_that_the_page_offers(url: str, service: Service) -> None:
    service.reply = lambda question: says(question, **{"very short": 0.29, "clear": 0.11})
    put(url, item("a", ask={"kind": "rating", "axes": ["very short", "clear"], "low": 0, "high": 0.3, "step": 0.1}))
    put(url, item("a", ask={"low": 0, "high": 1, "step": 0, "axes": ["clear"]}, name="two"))
    put(url, item("a", "b", ask="comparison", name="three"))
    assert judge(url, service) == 0
    stepped, slid = sorted((one for one in answers(url) if isinstance(one, Rating)), key=lambda one: len(one.marks), reverse=True)
    assert stepped.marks == {"very short": 0.3, "clear": pytest.approx(0.1)}
    assert slid.marks == {"clear": 0.11}


def test_how_far_the_judge_depends_on_the_order_is_said(url: str, service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    put(url, *(item("a" * i, "b", name=str(i)) for i in range(1, 9)))

    def better(question: str) -> str:  # the longer one; of equal ones the first
        one, two = (len(part(question, name)) for name in ("answer-A", "answer-B"))
        return says(question, better="A" if one >= two else "B")

    service.reply = better
    assert judge(url, service) == 0
    said = capsys.readouterr().out
    assert "the winner depends on the order in 12% of 8 comparisons" in said
    assert "56% of 16 verdicts, without ties, are for the answer shown first" in said
    assert sum(one == Comparison(better="tie") for one in answers(url)) == 1
    put(url + "2.jsonl", item("a", "b"))
    service.reply = lambda question: says(question, better="A")
    assert judge(url + "2.jsonl", service, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["disagreement"], found["first"]) == (1, 1)


def test_both_orders_are_asked_at_once_and_no_more_requests_than_that(url: str, service: Service) -> None:
    put(url, item("a", "b"))
    service.reply = lambda question: Sent(before=0.4, body=usual(says(question, better="A")))
    assert judge(url, service) == 0
    assert service.most == 2
    put(url, *(item("a", "b", name=f"more{i}") for i in range(3)))
    service.most = 0
    assert judge(url, service, "--at-once", "1") == 0
    assert (service.most, service.asked) == (1, 8)
