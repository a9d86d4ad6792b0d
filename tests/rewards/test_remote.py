"""Rewards over HTTP, as OpenRLHF asks for them: against a real server, in a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import DataError, ExperimentError, ServiceError
from hookline.loop import api
from judging_server import Sent, Service, serving
from refusing import told

Make = Callable[..., dict[str, Any]]
KEY = "sk-not-a-real-key"
WORDS = ["red", "green", "blue", "white"]


def vowels(asked: dict[str, Any]) -> dict[str, Any]:
    """As a server for OpenRLHF: rewards of the answers, which are what follows the prompts."""
    said = [query.removeprefix(prompt) for query, prompt in zip(asked["query"], asked["prompts"])]
    rewards = [sum(letter in "aeiou" for letter in text) + 0.5 * (label in text) for text, label in zip(said, asked["labels"])]
    return {"rewards": rewards, "scores": [0.5] * len(said), "extra_logs": {"letters": [len(text) for text in said]}}


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(vowels) as found:
        yield found


@pytest.fixture
def make(tmp_path: Path, service: Service) -> Make:
    """`make(option=…)`: two steps of 8 answers in a folder with rows.jsonl, with the reward `remote`."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"say {word}", "label": word}) + "\n" for word in WORDS))

    def experiment(**remote: Any) -> dict[str, Any]:
        settings = {"use": "remote", "url": f"{service.url}/get_reward", "backoff": 0.01, "tries": 2, "timeout": 5, "rows": 3, **remote}
        return {
            "name": "remote", "seed": 1, "threads": 1, "folder": str(tmp_path), "trackers": [],
            "tokenizer": {"train": "words", "on": "rows.jsonl", "vocabulary": 300},
            "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 16},
            "phases": [{
                "name": "rl", "steps": 2, "reward": settings, "update": {"use": "rloo", "lr": 1e-2}, "save": {"every": 1},
                "rollout": {"use": "generate", "prompts": "rows.jsonl", "rows": 4, "samples_per_prompt": 2, "max_new_tokens": 3},
            }],
        }  # fmt: skip

    return experiment


def test_rewards_are_the_services(make: Make, tmp_path: Path, service: Service) -> None:
    run = hookline.run(make(body={"task": "vowels"}), out=tmp_path / "out")
    first, second = service.requests[:3], service.requests[3:]
    for asked, row in zip((first, second), run.rows()[-2:]):
        assert sorted(len(one["query"]) for one in asked) == [2, 3, 3]
        assert {one["path"] for one in asked} == {"/v1/get_reward"}
        assert {one["task"] for one in asked} == {"vowels"}
        rewards = [reward for one in asked for reward in vowels(one)["rewards"]]
        assert row["metrics"]["reward/remote"] == pytest.approx(sum(rewards) / 8)
        assert row["metrics"]["remote/remote/scores"] == 0.5
        assert row["metrics"]["remote/remote/letters"] > 0
        assert row["metrics"]["remote/remote/failures"] == 0
    for one in first:
        assert all(query.startswith(prompt) for query, prompt in zip(one["query"], one["prompts"]))
        assert all(prompt.endswith(label) for prompt, label in zip(one["prompts"], one["labels"]))
    assert any("<" in query for one in first for query in one["query"]), "special tokens are sent"


def test_texts_without_special_tokens_and_another_label(make: Make, tmp_path: Path, service: Service) -> None:
    hookline.run(make(special_tokens=False, label="prompt"), out=tmp_path / "out")
    assert not any("<" in query for one in service.requests for query in one["query"])
    assert {label for one in service.requests for label in one["labels"]} == {f"say {word}" for word in WORDS}


def test_a_request_that_fails_leaves_its_rows_unjudged(make: Make, tmp_path: Path, service: Service) -> None:
    service.reply = lambda asked: Sent(503, b"busy") if len(asked["query"]) == 2 else vowels(asked)
    run = hookline.run(make(), out=tmp_path / "out")
    assert [row["metrics"]["remote/remote/failures"] for row in run.rows()[-2:]] == [2, 2]
    assert [row["metrics"]["unjudged"] for row in run.rows()[-2:]] == [2, 2]
    assert service.asked == 2 * (2 + 2)  # the third request of a step is tried twice
    [notice] = [one for one in run.notices if "did not judge" in one]
    assert "and 1 more: http://127.0.0.1" in notice
    assert "/v1/get_reward answered 503: 'busy' (2 tries)" in notice


def test_null_is_an_answer_that_is_not_judged(make: Make, tmp_path: Path, service: Service) -> None:
    service.reply = lambda asked: [None, *vowels(asked)["rewards"][1:]]
    run = hookline.run(make(), out=tmp_path / "out")
    assert [row["metrics"]["unjudged"] for row in run.rows()[-2:]] == [3, 3]
    assert not [one for one in run.notices if "did not judge" in one]


def test_a_failure_that_passes_is_not_a_failure(make: Make, tmp_path: Path, service: Service) -> None:
    service.reply = lambda asked: vowels(asked) if service.asked > 2 else Sent(429, b"", {"Retry-After": "0.01"})
    run = hookline.run(make(tries=3), out=tmp_path / "out")
    assert "unjudged" not in run.rows()[-1]["metrics"]


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"rewards": [1.0]}, "sent 1 rewards for "),
        ({"score": "high"}, "sent the text 'high' instead of a list of "),
        ({"error": "x"}, "sent a dict without `rewards` (it has error)"),
        ([1.0, 2.0, "c"], "sent "),
        (Sent(401, f'{{"detail": "wrong key {KEY}"}}'.encode()), "answered 401: 'wrong key …'"),
        (Sent(404, b"<html>"), "answered 404: '<html>'"),
    ],
)
def test_a_service_that_cannot_work_ends_the_run(
    sent: Any, sentence: str, make: Make, tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_KEY", KEY)
    service.reply = lambda asked: sent
    text = told(ServiceError, lambda: hookline.run(make(key="REWARD_KEY"), out=tmp_path / "out"))
    assert f"{service.url}/get_reward {sentence}" in text
    assert "one number per answer" in text
    assert set(service.keys) == {f"Bearer {KEY}"}
    assert KEY not in text
    assert not any(KEY.encode() in file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())


@pytest.mark.parametrize("closed", [True, False])
def test_a_service_that_never_answers_ends_the_run(closed: bool, make: Make, tmp_path: Path, service: Service) -> None:
    service.reply = lambda asked: Sent(before=20)
    options = {"url": "http://127.0.0.1:9/reward"} if closed else {"timeout": 0.3}
    text = told(ServiceError, lambda: hookline.run(make(**options), out=tmp_path / "out"))
    assert "because no row was judged; the first failure is of 'remote': ServiceError: " in text
    assert ("cannot be reached: ConnectError" if closed else "did not finish its reply within 0.3 s (2 tries)") in text


def test_a_run_that_goes_on_asks_nothing_twice(make: Make, tmp_path: Path, service: Service) -> None:
    whole = hookline.run(make(), out=tmp_path / "whole")
    asked, service.requests[:] = service.asked, []

    def once_a_step(request: dict[str, Any]) -> Any:
        return Sent(401) if service.asked == asked else vowels(request)  # the last request of the last step

    service.reply = once_a_step
    told(ServiceError, lambda: hookline.run(make(), out=tmp_path / "out"))
    service.reply = vowels
    run = hookline.run(make(), out=tmp_path / "out")
    assert service.asked <= asked + 3
    assert [row["metrics"] for row in run.rows()] == [row["metrics"] for row in whole.rows()]


def test_options_that_cannot_work(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWARD_KEY", raising=False)
    for options, sentence in (
        ({"url": "localhost:5000"}, "must begin with http:// or https://"),
        ({"key": KEY}, "must be the name of an environment variable in capitals"),
        ({"key": "REWARD_KEY"}, "names the environment variable REWARD_KEY, which does not hold a key"),
        ({"body": {"query": 1}}, "cannot set 'query', which is set from the rows"),
    ):
        text = told(ExperimentError, lambda options=options: api.plan(make(**options)))  # type: ignore[misc]
        assert sentence in text
        assert KEY not in text
    text = told(DataError, lambda: api.plan(make(label="labl")))
    assert "there is no column 'labl', which `label` of 'remote' names; the row has prompt, label" in text
