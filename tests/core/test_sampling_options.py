"""Options of drawing: whatever draws takes every field of `Sampling`, and hands it on."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from hookline import ExperimentError, Sampling
from hookline.study.speak import _sampling
from hookline_plugins.commands.collect import Collect
from hookline_plugins.commands.contest import Contest
from hookline_plugins.commands.generate import Chat, Generate
from hookline_plugins.rollouts.duel import Duel
from hookline_plugins.rollouts.generate import Generate as Rollout
from hookline_plugins.sampling import SamplingOptions

NAMES = {each.name for each in fields(Sampling)}
CUT: dict[str, Any] = {
    "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.2, "repetition_penalty": 1.2, "stop_strings": ("a", "b"),
    "stop_token_ids": (4,),
}  # fmt: skip


def test_the_options_are_the_fields_of_a_sampling_with_the_same_defaults() -> None:
    assert set(SamplingOptions.model_fields) == NAMES
    assert SamplingOptions().sampling == Sampling()


@pytest.mark.parametrize("cls", [Rollout, Duel, Generate, Chat, Contest, Collect])
def test_whatever_draws_has_every_option(cls: Any) -> None:
    config = cls.Config
    assert set(config.model_fields) >= NAMES
    for name in NAMES:
        assert config.model_fields[name].default == getattr(Sampling(), name)


@pytest.mark.parametrize("cls", [Generate, Chat, Contest, Collect])
def test_a_command_hands_on_what_it_was_given(cls: Any) -> None:
    needed = {name: "x" for name, field in cls.Config.model_fields.items() if field.is_required()}
    drawing = cls.Config(**needed, **CUT).drawing()
    assert {name: drawing[name] for name in CUT} == CUT
    assert _sampling(**{name: drawing[name] for name in NAMES}) == Sampling(**CUT)


def test_the_help_says_which_option_the_others_need() -> None:
    for name in NAMES:
        assert Contest.Config.model_fields[name].description.startswith("With --prompts: ")
        assert Collect.Config.model_fields[name].description.startswith("With --chat: ")
        assert "--" not in Generate.Config.model_fields[name].description


def test_an_option_that_does_nothing_is_refused() -> None:
    contest = Contest(Contest.Config(store="sqlite:///none.db", top_p=0.9))
    with pytest.raises(ExperimentError, match="--top-p does nothing without --prompts"):
        contest.run(None)  # type: ignore[arg-type]


def test_temperature_0_is_the_likeliest_token() -> None:
    assert _sampling(temperature=0, top_k=7) == Sampling(top_k=1)
    with pytest.raises(ExperimentError, match="temperature is -1"):
        _sampling(temperature=-1)
    with pytest.raises(TypeError, match="topk"):
        _sampling(topk=3)
