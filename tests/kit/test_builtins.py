"""Every built-in component keeps every law, like anybody's: what is on offer is asked, so nothing new is forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from hookline.contract.kinds import KINDS
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.testing import check
from judging_server import by_length, part, says, serving
from openenv_server import sessions

FUNCTION = str(Path(__file__).parents[1] / "rewards" / "users" / "of_any_row.py")
TOOLS = str(Path(__file__).parents[1] / "data" / "tools.py")
OWN = str(Path(__file__).with_name("own_environment.py"))
OPTIONS: dict[str, dict[str, Any]] = {
    "format": {"pattern": "a"}, "replay": {"groups": 1, "choose": "reward"}, "function": {"path": FUNCTION, "function": "vowels"},
    "functions": {"path": TOOLS, "tools": ["add"]}, "trl": {"path": TOOLS, "make": "Game"}, "gymnasium": {"id": "FrozenLake-v1"},
    "turns": {"environment": {"use": "gymnasium", "path": OWN, "make": "Own"}},
    "math-answer": {"answer": "prompt"}, "rank-correlation": {"of": "one", "with": "other"},
}  # fmt: skip
"""Options that nobody could guess; where `replay` replays every group it has, their ranks change nothing."""
QUICK = {
    "rollout": "dataset", "reward": "length", "wrapper": "whiten", "advantage": "leave-one-out", "update": "sft",
    "feedback": "simulated-annotator", "engine": "local", "environment": "process", "task": "arms", "format": "jsonl", "store": "jsonl",
    "tracker": "jsonl", "command": "compare",
}  # fmt: skip
"""One of every kind that has laws; the others are slow tests."""


def built_in() -> list[Any]:
    found = [offer for offer in offers.offers() if offer.built_in and KINDS[offer.kind].laws]
    slow = pytest.mark.slow
    return [
        pytest.param(offer, marks=() if offer.name == QUICK[offer.kind] else slow, id=f"{offer.kind}-{offer.name}")
        for offer in found
    ]


def test_one_of_every_kind_is_asked_every_day() -> None:
    quick = {(offer.kind, offer.name) for offer in offers.offers() if offer.built_in}
    assert quick >= set(QUICK.items())
    assert set(QUICK) == {kind for kind, row in KINDS.items() if row.laws}


@pytest.fixture
def judge() -> Iterator[dict[str, Any]]:
    """The options of a judge that rates and compares answers by their length, as a service of rewards does under the same address."""

    def rated(asked: Any) -> Any:
        if isinstance(asked, str) and "<answer-A-" in asked:
            one, two = (len(part(asked, name)) for name in ("answer-A", "answer-B"))
            return says(asked, better="tie" if one == two else "A" if one > two else "B")
        return by_length(asked) if isinstance(asked, str) else {"rewards": [len(query) for query in asked["query"]]}

    with serving(rated) as service:
        yield {"url": service.url, "model": "any"}


@pytest.mark.parametrize("offer", built_in())
def test_a_built_in_keeps_every_law(
    offer: Offer, judge: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    served = {
        "people": {"store": f"sqlite:///{tmp_path}/people.db", "at_most": 0, "poll": 0.01},
        "file": {"path": f"{tmp_path}/arrived.jsonl"},
        "judge": judge, "remote": {"url": judge["url"]}, "sql": {"url": f"sqlite:///{tmp_path}/laws.db"},
    }  # fmt: skip
    with sessions() if offer.name == "openenv" else nullcontext() as server:
        options = {"openenv": {"url": server.url}} if server else served | OPTIONS
        report = check(offer, **options.get(offer.name, {}))
    assert report.passed, str(report)


def test_the_exact_mode_of_local_keeps_every_law() -> None:
    [local] = [offer for offer in offers.offers() if (offer.kind, offer.name, offer.built_in) == ("engine", "local", True)]
    report = check(local, exact=True, slots=8)
    assert report.passed, str(report)
    assert "exact" in {said.law for said in report.verdicts if said.outcome == "pass"}
