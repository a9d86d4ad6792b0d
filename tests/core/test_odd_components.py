"""Components that no type checker saw: each fault is one sentence that names the component, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline.errors import NumbersError, PluginError
from hookline.loop.api import plan

Write = Callable[..., str]
Tiny = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("hook", "arguments", "where"),
    [
        ("hookline_update", "ctx, batch", {"update": "odd"}),
        ("hookline_advantage", "scored", {"advantage": "odd"}),
        ("hookline_judge", "scored", {"feedback": "odd", "advantage": None, "update": None}),
    ],
)
def test_a_coroutine_from_a_hook_that_is_not_awaited_is_named(
    hook: str, arguments: str, where: dict[str, Any], plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    base = "Config = UpdateConfig" if hook == "hookline_update" else ""
    path = plugin(
        f"""
        class Odd(Component):
            {base or 'name = "odd"'}

            @hookimpl
            def {hook}(self, {arguments}):
                async def later():
                    return None
                return later()
        """,
        "odd",
    )
    with pytest.raises(PluginError, match=f"{hook} returned a coroutine, which only hookline_reward may"):
        hookline.run(tiny(reward="tokens", **where), plugins=[path], out=tmp_path / "run")


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("takes = 3", "takes is 3"),
        ("exempt = 3", "exempt is 3"),
        ("needs = {type('R', (), {'__repr__': lambda s: 1 / 0})()}", "cannot be shown"),
    ],
)
def test_what_a_class_declares_is_checked(attribute: str, said: str, plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(
        f"""
        class Odd(Component):
            Config = UpdateConfig
            {attribute}

            @hookimpl
            def hookline_update(self, ctx, batch):
                return None
        """,
        "odd",
    )
    with pytest.raises(hookline.HooklineError) as caught:
        plan(tiny(reward="tokens", update="odd"), plugins=[path])
    assert said in str(caught.value)


SPEECHLESS = """
    class Silent(Exception):
        def __str__(self):
            raise ValueError("no")

    class Odd(Component):
        name = "odd"

        @hookimpl
        def hookline_reward(self, rollout):
            raise Silent

    class Told(Component):
        name = "told"

        @hookimpl
        def hookline_row(self, row):
            raise Silent
"""


def test_an_exception_without_a_readable_text_is_named_by_its_type(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(SPEECHLESS, "odd")
    with pytest.raises(PluginError, match="failed in hookline_reward: Silent, whose text cannot be read"):
        hookline.run(tiny(reward="odd"), plugins=[path], out=tmp_path / "run")
    described = {**tiny(reward="tokens"), "trackers": ["told"]}
    run = hookline.run(described, plugins=[path], out=tmp_path / "told")
    assert any("tracker 'told' failed and is no longer called: Silent" in notice for notice in run.notices)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("torch.set_default_dtype(torch.float64)", "torch's default dtype"),
        ("torch.set_grad_enabled(False)", "whether torch computes gradients"),
        ("torch.set_num_threads(torch.get_num_threads() + 1)", "the number of torch's threads"),
    ],
)
def test_settings_of_the_whole_process_are_not_a_components(
    change: str, said: str, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    import torch

    before = torch.get_num_threads()
    path = plugin(
        f"""
        class Odd(Component):
            name = "odd"

            @hookimpl
            def hookline_reward(self, rollout):
                {change}
                return torch.ones(len(rollout))
        """,
        "odd",
    )
    try:
        with pytest.raises(PluginError, match=f"reward 'odd' .* changed {said} during hookline_reward"):
            hookline.run(tiny(reward="odd"), plugins=[path], out=tmp_path / "run")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.set_num_threads(before)


def test_a_rate_that_moves_no_weight_teaches_nothing(tiny: Tiny, tmp_path: Path) -> None:
    described = tiny(reward="tokens", update={"use": "vanilla", "lr": 1e-300})
    with pytest.raises(NumbersError, match="no weight changed at a learning rate of 1e-300 → raise lr"):
        hookline.run(described, out=tmp_path / "run")
    with pytest.raises(NumbersError, match="nothing was learned"):
        hookline.run({**described, "seed": 2}, ["phases.rl.steps=5"], out=tmp_path / "longer")


def test_a_phase_that_collects_nothing_says_so(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(
        """
        class Nobody(Component):
            name = "nobody"

            @hookimpl
            def hookline_judge(self, scored):
                return []
        """,
        "nobody",
    )
    described = tiny(reward="tokens", advantage=None, update=None, feedback="nobody")
    run = hookline.run(described, plugins=[path], out=tmp_path / "run")
    assert run.notices == ("phase 'rl' collected no judgement in 2 steps",)


def test_a_judgement_with_a_number_that_json_does_not_have_is_refused(
    plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    path = plugin(
        """
        from hookline import Judgement, Thumb

        class Unsure(Component):
            name = "unsure"

            @hookimpl
            def hookline_judge(self, scored):
                return [Judgement(rows=(0,), answer=Thumb(up=True), annotator="me", detail={"confidence": float("nan")})]
        """,
        "unsure",
    )
    described = tiny(reward="tokens", advantage=None, update=None, feedback="unsure")
    with pytest.raises(PluginError, match=r"a judgement cannot be stored as JSON: .* → keep text and finite numbers"):
        hookline.run(described, plugins=[path], out=tmp_path / "run")
