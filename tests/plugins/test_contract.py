"""The contract is loud: each way to break it gives one sentence that names whose plugin it is and what mends it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline.errors import CheckpointError, ExperimentError, HooklineError, NumbersError, PluginError
from hookline.loop.api import plan
from hookline.registry import offers

Tiny = Callable[..., dict[str, Any]]
Write = Callable[..., str]


def refusal(
    kind: type[HooklineError], experiment: Mapping[str, Any], *plugins: str, run: Path | None = None
) -> HooklineError:
    """The error of planning, or of running into a folder; always one sentence with a hint."""
    with pytest.raises(HooklineError) as caught:
        hookline.run(experiment, plugins=plugins, out=run) if run else plan(experiment, plugins=plugins)
    err = caught.value
    assert type(err) is kind, err
    assert len(str(err).splitlines()) == 1 or isinstance(err, ExperimentError)
    assert err.hint or isinstance(err, ExperimentError)
    return err


def rows(run: hookline.Run) -> list[tuple[str, int, dict[str, float]]]:
    return [(row["phase"], row["step"], row["metrics"]) for row in run.rows()]


def module(path: str) -> Any:
    """The module that a loose file became; files of equal name and content are one."""
    return sys.modules[offers._import_loose(Path(path))]


# -- what a class must look like; all refused before a weight is loaded


CLASSES = {
    "unknown hook": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantages(self, scored): ...",
        r"unknown hook 'hookline_advantages'; did you mean 'hookline_advantage'\?",
    ),
    "unknown hook beside a good one": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored): ...\n"
        "    @hookimpl\n    def hookline_rewrad(self, rollout): ...",
        r"unknown hook 'hookline_rewrad'; did you mean 'hookline_reward'\?",
    ),
    "no hookimpl": (
        "class Mine(Component):\n    def hookline_advantage(self, scored): ...",
        r"hookline_advantage without @hookimpl.*→ add @hookimpl",
    ),
    "extra argument": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, score): ...",
        r"takes 'score'.*did you mean 'scored'\?.*→ write def hookline_advantage\(self, ctx, scored\)",
    ),
    "default value": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored, ctx=None): ...",
        r"gives 'ctx' a default",
    ),
    "star arguments": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, *anything): ...",
        r"takes \*anything",
    ),
    "async": (
        "class Mine(Component):\n    @hookimpl\n    async def hookline_advantage(self, scored): ...",
        r"is async; only hookline_reward may be",
    ),
    "generator that is no wrapper": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored):\n        yield scored",
        r"yields but is not marked as a wrapper",
    ),
    "wrapper that never yields": (
        "class Mine(Component):\n    @hookimpl(wrapper=True)\n    def hookline_advantage(self, scored): return scored",
        r"is a wrapper but never yields",
    ),
    "instance": (
        "class Mine(Component):\n    name = 'other'\n    @hookimpl\n    def hookline_advantage(self, scored): ...",
        r"an instance of Mine, not a class",
    ),
    "function": ("def mine(scored): ...", r"is a function, not a class"),
    "newer hook API": (
        "class Mine(Component):\n    hook_api = '9.0'\n    @hookimpl\n    def hookline_advantage(self, scored): ...",
        r"written for hook API 9\.0, this Hookline has 1\.\d+ → upgrade hookline",
    ),
    "older hook API": (
        "class Mine(Component):\n    hook_api = '0.9'\n    @hookimpl\n    def hookline_advantage(self, scored): ...",
        r"written for hook API 0\.9.* → upgrade the plugin",
    ),
    "nonsense hook API": (
        "class Mine(Component):\n    hook_api = 'new'\n    @hookimpl\n    def hookline_advantage(self, scored): ...",
        r"has hook_api = 'new'",
    ),
    "answers another kind too": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored): ...\n"
        "    @hookimpl\n    def hookline_update(self, batch): ...",
        r"also answers hookline_update",
    ),
    "answers for the core": (
        "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored): ...\n"
        "    @hookimpl\n    def hookline_score(self, rollout): ...",
        r"hookline_score.*wrapper=True",
    ),
    "wraps what cannot be wrapped": (
        "class Mine(Component):\n    @hookimpl(wrapper=True)\n    def hookline_reward(self, rollout):\n        return (yield)",
        r"wraps hookline_reward, which cannot be wrapped",
    ),
}  # fmt: skip


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`distribution("hookline-one", "1.0", {"advantage": "same"}, source)`: installed, as far as metadata can tell."""

    def install(name: str, version: str, names: Mapping[str, str], source: str, attribute: str = "Mine") -> str:
        folder, imported = tmp_path / "site", name.replace("-", "_")
        info = folder / f"{imported}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        points = "".join(f"[hookline.{kind}]\n{offered} = {imported}:{attribute}\n" for kind, offered in names.items())
        (info / "entry_points.txt").write_text(points)
        (folder / f"{imported}.py").write_text("from hookline import Component, hookimpl\n" + source)
        monkeypatch.syspath_prepend(str(folder))
        offers._installed.cache_clear()
        return imported

    before = set(sys.modules)
    yield install
    for name in set(sys.modules) - before:
        if name.startswith("hookline_") and not name.startswith("hookline_plugins"):
            del sys.modules[name]
    monkeypatch.undo()
    offers._installed.cache_clear()


@pytest.mark.parametrize("case", CLASSES)
def test_a_class_that_breaks_the_contract_is_refused_by_name(case: str, distribution: Any, tiny: Tiny) -> None:
    source, sentence = CLASSES[case]
    attribute = {"instance": "made", "function": "mine"}.get(case, "Mine")
    if case == "instance":
        source += "\nmade = Mine(Mine.Config())"
    distribution("hookline-mine", "0.7", {"advantage": "mine"}, source, attribute)
    err = refusal(PluginError, tiny(advantage="mine"))
    assert re.search(sentence, str(err)), err
    assert "'mine' (hookline-mine 0.7)" in str(err)
    assert plan(tiny()), "a run that does not use it goes on"


def test_a_class_offered_as_what_it_is_not(distribution: Any, tiny: Tiny) -> None:
    source = "class Mine(Component):\n    @hookimpl\n    def hookline_reward(self, rollout): ..."
    distribution("hookline-mine", "0.7", {"advantage": "mine"}, source)
    err = refusal(PluginError, tiny(advantage="mine"))
    assert "offered as advantage but does not answer hookline_advantage" in str(err)


def test_an_entry_point_that_leads_nowhere(distribution: Any, tiny: Tiny) -> None:
    distribution("hookline-mine", "0.7", {"advantage": "mine"}, "class Other(Component): ...")
    err = refusal(PluginError, tiny(advantage="mine"))
    assert "points at 'hookline_mine:Mine', but 'hookline_mine' has no 'Mine'" in str(err)
    assert "(hookline-mine 0.7)" in str(err)


def test_a_misspelt_kind_of_entry_point_is_listed_with_the_nearest(distribution: Any) -> None:
    distribution("hookline-mine", "0.7", {"advantages": "mine"}, "class Mine(Component): ...")
    [offer] = [o for o in offers.offers() if o.distribution == "hookline-mine"]
    assert offer.problem == "there is no kind 'advantages'; did you mean 'advantage'?"


@pytest.mark.parametrize("name", ["Üpper", "../up", "a" * 65, "x y"])
def test_names_that_are_no_names_are_listed_as_such(name: str, distribution: Any) -> None:
    distribution("hookline-mine", "0.7", {"advantage": name}, "class Mine(Component): ...")
    [offer] = [o for o in offers.offers() if o.distribution == "hookline-mine"]
    assert "lower-case letters" in offer.problem


# -- names


ONE = "class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored): return scored.advantaged(scored.reward_B)"


@pytest.mark.parametrize("failure", ["RuntimeError('why')", "SystemExit(0)"])
def test_a_config_whose_own_code_fails_is_named(failure: str, plugin: Write, tiny: Tiny) -> None:
    path = plugin(f"""
    class Mine(Component):
        class Config(Config):
            def model_post_init(self, context):
                raise {failure}
        @hookimpl
        def hookline_advantage(self, scored): ...
    """)
    err = refusal(PluginError, tiny(advantage="mine"), path)
    assert re.search(r"advantage 'mine' \(mine.py \w+\) failed in its Config: (RuntimeError: why|SystemExit)", str(err)), err


@pytest.mark.parametrize(
    ("metadata", "points", "why"),
    [
        (None, "[hookline.update]\nx = y:Z\n", "METADATA is missing or has no Name"),
        ("Version: 1.0\n", "[hookline.update]\nx = y:Z\n", "METADATA is missing or has no Name"),
        (b"\xff\xfeName: hookline-torn\n", "[hookline.update]\nx = y:Z\n", "UnicodeDecodeError"),
        ("Name: hookline-torn\nVersion: 1.0\n", b"\xff\xfe[hookline.update]\n", "UnicodeDecodeError"),
    ],
    ids=["missing", "nameless", "binary", "binary-entry-points"],
)
def test_unreadable_metadata_is_listed_as_broken_and_breaks_nothing_else(
    metadata: Any, points: Any, why: str, distribution: Any, tiny: Tiny, tmp_path: Path
) -> None:
    distribution("hookline-fine", "0.7", {"advantage": "fine"}, CLASSES["no hookimpl"][0])
    info = tmp_path / "site/hookline_torn-1.0.dist-info"
    info.mkdir()
    for name, text in (("METADATA", metadata), ("entry_points.txt", points)):
        if text is not None:
            (info / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    [torn] = [offer for offer in offers.offers() if offer.distribution == "hookline-torn"]
    assert torn.problem.startswith("its metadata cannot be read: ")
    assert why in torn.problem
    assert any(offer.name == "fine" and not offer.problem for offer in offers.offers())
    assert plan(tiny())


def test_metadata_on_which_other_libraries_fail_is_named(tmp_path: Path) -> None:
    """torch and pydantic read the entry points of all distributions while they are imported."""
    info = tmp_path / "anybodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: anybodys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(b"\xff\xfe")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from hookline.cli import main; sys.exit(main(['run', 'x.yaml']))"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5
    assert re.fullmatch(r"PluginError: \S+anybodys-1\.0\.dist-info/entry_points\.txt cannot be read: .*\n", done.stderr)


def test_two_distributions_with_one_name_must_be_told_apart(distribution: Any, tiny: Tiny) -> None:
    for name in ("hookline-one", "hookline-two"):
        distribution(name, "1.0", {"advantage": "same"}, ONE)
    err = refusal(PluginError, tiny(advantage="same"))
    assert "advantage 'same' is offered by 2 distributions" in str(err)
    assert (
        "'hookline-one:same' or 'hookline-two:same'" in err.hint
        or "'hookline-two:same' or 'hookline-one:same'" in err.hint
    )
    planned = plan(tiny(advantage="hookline-two:same"))
    slot = planned.phases[0].advantage
    assert slot is not None
    assert (slot.offer.distribution, slot.cls.__module__, slot.instance) == ("hookline-two", "hookline_two", "same")
    assert "hookline_one" not in sys.modules


def test_a_distribution_that_is_not_there_is_what_to_install(tiny: Tiny) -> None:
    err = refusal(PluginError, tiny(advantage="hookline-three:same"))
    assert err.hint.startswith("install hookline-three, if there is one")


def test_a_misspelt_component_gets_the_nearest_name(tiny: Tiny) -> None:
    assert "did you mean 'keyword-coverage'?" in str(refusal(PluginError, tiny(reward="keyword-covrage")))
    assert "no reward 'gae' is installed; 'gae' is offered as advantage" in str(
        refusal(PluginError, tiny(reward="gae"))
    )


def test_a_loose_file_cannot_take_a_built_in_name(plugin: Write, tiny: Tiny) -> None:
    path = plugin("class Length(Component):\n    @hookimpl\n    def hookline_reward(self, rollout): ...", "length")
    err = refusal(PluginError, tiny(reward="length"), path)
    assert "'length' is a built-in reward, and a plugin cannot use a built-in name; rename it" in str(err)
    assert "length.py" in str(err)


def test_a_distribution_cannot_take_a_built_in_name(distribution: Any, tiny: Tiny) -> None:
    distribution("hookline-taker", "1.0", {"advantage": "gae"}, ONE)
    slot = plan(tiny(advantage="gae", update="ppo")).phases[0].advantage
    assert slot is not None
    assert slot.offer.built_in
    err = refusal(PluginError, tiny(advantage="hookline-taker:gae"))
    assert "(hookline-taker 1.0) cannot be used: 'gae' is a built-in advantage" in str(err)


def test_a_loose_file_stands_before_an_installed_one_of_that_name(distribution: Any, plugin: Write, tiny: Tiny) -> None:
    distribution("hookline-mine", "1.0", {"advantage": "mine"}, ONE)
    slot = plan(tiny(advantage="mine"), plugins=[plugin(ONE)]).phases[0].advantage
    assert slot is not None
    assert slot.offer.path.endswith("mine.py")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
        ("import sys; sys.exit(0)", "sys.exit"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "defines no component"),
    ],
    ids=["raises", "exits", "syntax", "empty"],
)
def test_a_loose_file_that_cannot_be_used(source: str, sentence: str, plugin: Write, tiny: Tiny) -> None:
    err = refusal(PluginError, tiny(), plugin(source))
    assert sentence in str(err)
    assert "mine.py" in str(err)


def test_a_loose_file_that_is_not_there(tiny: Tiny, tmp_path: Path) -> None:
    assert "no plugin file" in str(refusal(PluginError, tiny(), str(tmp_path / "gone.py")))
    assert "no plugin of that name" in str(refusal(PluginError, tiny(), "gone"))


# -- what fits together; refused before a weight is loaded


def problems(experiment: Mapping[str, Any], *plugins: str) -> tuple[str, ...]:
    err = refusal(ExperimentError, experiment, *plugins)
    assert isinstance(err, ExperimentError)
    return err.problems


def test_an_update_that_takes_advantages_needs_one(tiny: Tiny) -> None:
    assert problems(tiny(advantage=None)) == (
        "'vanilla' takes advantages; name an `advantage` (hookline plugins list)",
    )


def test_an_advantage_needs_a_reward(tiny: Tiny) -> None:
    problem, *_ = problems(tiny(reward=None))
    assert "'loo' turns rewards into advantages, but phase 'rl' names no reward" in problem


def test_a_missing_need_is_one_sentence(tiny: Tiny, shelf: Path) -> None:
    alone = {"use": "generate", "prompts": str(shelf / "prompts.jsonl"), "max_new_tokens": 6}
    [problem] = problems(tiny(rollout=alone))
    assert problem == "'loo' needs several samples per prompt, but 'generate' gives one; e.g. samples_per_prompt: 4"
    [problem] = problems(
        tiny(rollout={"use": "dataset", "path": str(shelf / "prompts.jsonl")}, advantage="gae", update="ppo")
    )
    assert problem == "'ppo' needs the sampler's log-probs, but 'dataset' records none; name a rollout that samples"


def test_a_missing_column_is_named(plugin: Write, tiny: Tiny) -> None:
    path = plugin(
        "class Mine(Component):\n    needs = {'margin_B'}\n    @hookimpl\n    def hookline_update(self, batch): ..."
    )
    assert problems(tiny(update="mine"), path) == ("'mine' needs 'margin_B', which nothing in phase 'rl' gives",)


@pytest.mark.parametrize(("need", "meant"), [("behavior", "behaviour"), ("group", "groups"), ("critics", "critic")])
def test_a_misspelt_need_gets_the_nearest_word(need: str, meant: str, plugin: Write, tiny: Tiny) -> None:
    path = plugin(
        f"class Mine(Component):\n    needs = {{'{need}'}}\n    @hookimpl\n    def hookline_update(self, batch): ..."
    )
    [problem] = problems(tiny(update="mine"), path)
    assert problem == f"'mine' needs '{need}', which nothing in phase 'rl' gives; did you mean '{meant}'?"


@pytest.mark.parametrize(("hook", "kind"), [("hookline_updat", "update"), ("hookline_rewrad", "reward")])
def test_a_loose_file_whose_only_hook_is_misspelt(hook: str, kind: str, plugin: Write, tiny: Tiny) -> None:
    path = plugin(f"class Mine(Component):\n    @hookimpl\n    def {hook}(self): ...")
    err = refusal(PluginError, tiny(**{kind: "mine"}), path)
    assert f"unknown hook '{hook}'; did you mean 'hookline_{kind}'?" in str(err)


def test_another_advantage_takes_gaes_place_by_one_word(tiny: Tiny, tmp_path: Path) -> None:
    found = {}
    for advantage in ("gae", "loo"):
        run = hookline.run(tiny(advantage=advantage, update="ppo", steps=1), out=tmp_path / advantage)
        [(_, _, found[advantage])] = rows(run)
    assert "value_loss" in found["gae"]
    assert "value_loss" not in found["loo"], "nobody asked for a critic"
    assert found["gae"]["reward"] == found["loo"]["reward"]


def test_an_unknown_option_gets_the_nearest_name(tiny: Tiny) -> None:
    [problem] = problems(tiny(update={"use": "vanilla", "learning_rte": 1}))
    assert "has no option 'learning_rte'" in problem
    [problem] = problems(tiny(update={"use": "vanilla", "grad_clp": 1}))
    assert "did you mean 'grad_clip'?" in problem


def test_all_problems_come_at_once(tiny: Tiny) -> None:
    assert (
        len(problems(tiny(reward="lenght", advantage={"use": "loo", "x": 1}, wrap=[{"use": "whiten", "flor": 1}]))) == 3
    )


# -- rewards that say what they must not: refused at the hook, the weights untouched

PROBE = """
    SEEN = {}

    class Probe(Component):
        @hookimpl(wrapper=True)
        def hookline_rollout(self, ctx):
            SEEN["policy"] = ctx.role_named("policy")
            SEEN["before"] = SEEN["policy"].hash()
            SEEN["rollout"] = yield
            return SEEN["rollout"]
"""
JUDGE = "class Grader(Component):\n    @hookimpl\n    def hookline_reward(self, ctx, rollout):\n"
GOOD = "        good = torch.arange(len(rollout)).float()\n"


def judge(body: str) -> str:
    return JUDGE + GOOD + "".join(f"        {line}\n" for line in body.splitlines())


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        ("return good[:-1]", PluginError, r"returned \[7\] for 8 rows → return \[8\] or \[8, \d+\]"),
        ("return good[:, None]", PluginError, r"returned \[8, 1\] for 8 rows"),
        ("return good.tolist()", PluginError, r"returned a list → return a float tensor \[8\]"),
        ("return None", PluginError, r"returned nothing → return a float tensor \[8\]"),
        ("return good.requires_grad_()", PluginError, r"carries a gradient"),
        ("return Term(good, torch.ones(3, dtype=torch.bool))", PluginError, r"ok_B is \[3\] for 8 rows"),
        ("return Term(good, [True] * 8)", PluginError, r"ok_B is a list, not a bool tensor → return Term\(value, ok_B\)"),
        ("return Term(good, torch.ones(8))", PluginError, r"ok_B is torch.float32, not a bool tensor"),
        ("return Term(good, good > 9).value.to_sparse()", PluginError, r"returned a tensor that is sparse"),
        ("return Term(good.to('meta'))", PluginError, r"returned a tensor that is on meta, without values"),
        ("return good + 1j", PluginError, r"returned a tensor that is complex"),
        ("return next(iter([]))", PluginError, r"failed in hookline_reward: StopIteration"),
        ("raise GeneratorExit", PluginError, r"failed in hookline_reward: GeneratorExit"),
        ("good[5] = float('nan')\nreturn good", NumbersError, r"gave nan to sample 5 \('[^']*'\); the weights are as before"),
        ("good[5] = float('-inf')\nreturn good", NumbersError, r"gave -inf to sample 5"),
        ("return torch.full(rollout.token_ids_BT.shape, float('inf'))", NumbersError, r"gave inf to sample 0"),
        ("rollout.token_ids_BT[0, 0] = 3\nreturn good", PluginError, r"changed 'token_ids_BT' in place during hookline_reward"),
        ("rollout.behaviour.logprobs_BT.zero_()\nreturn good", PluginError, r"changed 'behaviour\.logprobs_BT' in place"),
        ("raise ValueError('the judge is out')", PluginError, r"failed in hookline_reward: ValueError: the judge is out"),
        ("import sys; sys.exit(0)", PluginError, r"failed in hookline_reward: SystemExit"),
        ("ctx.log('scor', 1.0)\nreturn good", PluginError, r"logs 'scor', which no component declares; did you mean 'score'\?"),
        ("ctx.role('new')\nreturn good", PluginError, r"after the phase has begun → make it in setup"),
        ("ctx.train(rollout, None)", PluginError, r"'grader' calls ctx.train, which only an update may do"),
    ],
    ids=["short", "column", "list", "none", "gradient", "ok-shape", "ok-list", "ok-float",
         "sparse", "meta", "complex", "stop-iteration", "generator-exit", "nan", "minus-inf", "inf-tokens", "in-place",
         "in-place-behaviour", "raises", "exits", "undeclared", "late-role", "trains"],
)  # fmt: skip
def test_a_reward_that_breaks_its_promise(
    body: str, kind: type[HooklineError], sentence: str, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    source = judge(body).replace("    @hookimpl", '    metrics = (Metric("score", "a figure"),)\n    @hookimpl', 1)
    paths = plugin(PROBE, "probe"), plugin(source, "grader")
    err = refusal(kind, tiny(reward="grader", wrap="probe"), *paths, run=tmp_path / "run")
    assert re.search(sentence, str(err)), err
    assert "grader.py" in str(err) or "'grader'" in str(err)
    seen = module(paths[0]).SEEN
    assert seen["policy"].hash() == seen["before"]
    assert not hookline.Run.read(tmp_path / "run").rows()


def test_nan_later_in_a_run_names_that_row_and_the_rows_before_stay(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    paths = plugin(PROBE, "probe"), plugin(judge("if ctx.step == 2: good[3] = float('nan')\nreturn good"), "grader")
    err = refusal(NumbersError, tiny(reward="grader", wrap="probe", steps=4), *paths, run=tmp_path / "run")
    assert "reward 'grader' (grader.py" in str(err)
    assert "sample 19" in str(err)
    seen = module(paths[0]).SEEN
    assert seen["policy"].hash() == seen["before"]
    assert [row["step"] for row in hookline.Run.read(tmp_path / "run").rows()] == [1, 2]


def test_rows_that_could_not_be_judged_are_dropped_and_counted(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    source = judge(
        "good[1] = float('nan')\nok = torch.ones(8, dtype=torch.bool)\nok[1] = ok[6] = False\nreturn Term(good, ok)"
    )
    run = hookline.run(tiny(reward="grader", steps=1), plugins=[plugin(source, "grader")], out=tmp_path / "run")
    [(_, _, figures)] = rows(run)
    assert figures["unjudged"] == 2
    assert figures["rows"] == 6
    assert figures["reward"] == pytest.approx((0 + 2 + 3 + 4 + 5 + 7) / 6)


def test_a_step_in_which_nobody_was_judged_is_a_step_without_update(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    source = judge("return Term(good, torch.zeros(8, dtype=torch.bool))")
    paths = plugin(PROBE, "probe"), plugin(source, "grader")
    err = refusal(NumbersError, tiny(reward="grader", wrap="probe", steps=1), *paths, run=tmp_path / "run")
    assert "nothing was learned in the only step of phase 'rl', because no row was judged" in str(err)
    [(_, _, figures)] = rows(hookline.Run.read(tmp_path / "run"))
    assert (figures["unjudged"], figures["rows"]) == (8, 0)
    seen = module(paths[0]).SEEN
    assert seen["policy"].hash() == seen["before"]


def test_a_reward_may_speak_per_token(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    source = judge("return torch.ones(rollout.token_ids_BT.shape) * good[:, None]")
    run = hookline.run(
        tiny(reward=["grader", "length"], steps=1), plugins=[plugin(source, "grader")], out=tmp_path / "run"
    )
    [(_, _, figures)] = rows(run)
    assert figures["reward"] == pytest.approx(figures["reward/grader"] + figures["reward/length"])


# -- other hooks


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return scored.reward_B", r"hookline_advantage returned a tensor \[8\], not Advantaged → return scored.advantaged"),
        ("return None", r"returned nothing, not Advantaged"),
        ("return scored", r"returned a Scored, not Advantaged"),
        ("return scored.advantaged(scored.reward_BT[:, :-1])", r"'advantage_BT' is \[8, \d+\] but the batch has BT"),
        ("return scored.advantaged(scored.reward_B, margin=scored.reward_B)", r"'margin' must end in _B, _BP or _BT"),
        ("return scored.advantaged(scored.reward_B, margin_BT=scored.reward_B)", r"'margin_BT' is \[8\]"),
        ("return scored.advantaged(scored.reward_B.clone().requires_grad_())", r"advantage_BT carries a gradient"),
        ("scored.reward_BT.sub_(1)\nreturn scored.advantaged(scored.reward_B)", r"changed 'reward_BT' in place"),
        ("scored.terms['keyword-coverage'].zero_()\nreturn scored.advantaged(scored.reward_B)", r"changed 'terms\[keyword-coverage\]'"),
    ],
    ids=["tensor", "none", "stage", "shape", "suffix", "column", "gradient", "in-place", "in-place-term"],
)  # fmt: skip
def test_an_advantage_that_breaks_its_promise(
    body: str, sentence: str, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    path = plugin(f"class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored):\n{lines}")
    err = refusal(PluginError, tiny(advantage="mine"), path, run=tmp_path / "run")
    assert re.search(sentence, str(err)), err
    assert "mine.py" in str(err)


def test_a_nan_advantage_names_row_and_plugin(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    body = "advantage_B = scored.reward_B.clone()\n        advantage_B[2] = float('nan')\n        return scored.advantaged(advantage_B)"
    paths = (
        plugin(PROBE, "probe"),
        plugin(f"class Mine(Component):\n    @hookimpl\n    def hookline_advantage(self, scored):\n        {body}"),
    )
    err = refusal(NumbersError, tiny(advantage="mine", wrap="probe"), *paths, run=tmp_path / "run")
    assert "advantage 'mine' (mine.py" in str(err)
    assert "sample 2 " in str(err)
    seen = module(paths[0]).SEEN
    assert seen["policy"].hash() == seen["before"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("ctx.train(batch, lambda mb: mb.batch.advantage_BT.mean())", r"the loss function returned a Tensor"),
        (
            "ctx.train(batch, lambda mb: mb.batch.advantage_BT + mb.token_mean(mb.batch.advantage_BT))",
            r"torch's add was given a loss",
        ),
        ("ctx.train(batch, lambda mb: 1.0 - mb.token_mean(mb.batch.advantage_BT))", r"a loss was added to a float"),
        (
            "ctx.train(batch, lambda mb: torch.exp(mb.token_mean(mb.batch.advantage_BT)))",
            r"torch's exp was given a loss",
        ),
        ("ctx.train(batch, lambda mb: mb.token_mean(mb['old_BT']))", r"no column 'old_BT'"),
        (
            "ctx.train(batch, lambda mb: mb.token_mean(mb.stats(want=('entropi',))['entropi']))",
            r"did you mean 'entropy'\?",
        ),
        ("return {'los': 1.0}", r"'mine' logs 'los', which no component declares; did you mean 'loss'\?"),
        ("return 1.0", r"returned a float, not figures by name"),
        ("return {'loss': 'x'}", r"update 'mine' .*: 'loss' is a str, not a number → give one number for each figure"),
        ("return {'loss': None}", r"'loss' is nothing, not a number"),
        ("return {'loss': torch.ones(2)}", r"'loss' is a tensor \[2\], not a number"),
        ("return {'loss': 1j}", r"'loss' is a complex, not a number"),
        ("return {'loss': 10 ** 400}", r"'loss' is a number beyond floating point"),
        ("return {1: 1.0}", r"a figure is called 1 → name figures with text"),
        ("ctx.stats(batch, model='polcy')", r"asks for role 'polcy', which does not exist; did you mean 'policy'\?"),
    ],
    ids=[
        "bare-loss",
        "tensor-and-loss",
        "number-and-loss",
        "function-of-loss",
        "column",
        "statistic",
        "undeclared",
        "figures",
        "text",
        "none",
        "vector",
        "complex",
        "huge",
        "key",
        "role",
    ],
)
def test_an_update_that_breaks_its_promise(body: str, sentence: str, plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(
        f"class Mine(Component):\n    Config = UpdateConfig\n    @hookimpl\n    def hookline_update(self, ctx, batch):\n        {body}\n"
    )
    err = refusal(PluginError, tiny(update="mine"), path, run=tmp_path / "run")
    assert re.search(sentence, str(err)), err
    assert "mine" in str(err)


def test_a_figure_may_be_any_one_number(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin("""
    import numpy
    class Mine(Component):
        class Config(UpdateConfig): ...
        metrics = tuple(Metric(name, name) for name in "abcde")
        @hookimpl
        def hookline_update(self, ctx, batch):
            ctx.train(batch, lambda mb: mb.token_mean(-mb.stats().logprobs_BT))
            return {"a": True, "b": 2, "c": numpy.float32(3), "d": torch.tensor([4]), "e": numpy.array([[5]])}
    """)
    run = hookline.run(tiny(update="mine", steps=1), plugins=[path], out=tmp_path / "run")
    assert [rows(run)[-1][2][name] for name in "abcde"] == [1, 2, 3, 4, 5]


# -- wrappers

SCALE = """
    class Scale(Component):
        class Config(Config):
            factor: float = 1.0
            shift: float = 0.0

        @hookimpl(wrapper=True)
        def hookline_score(self, rollout):
            scored = yield
            assert type(scored).__name__ == "Scored" and scored.reward_BT.is_floating_point()
            ones_BT = rollout.scored(torch.ones(len(rollout))).reward_BT
            return scored.with_reward(scored.reward_BT * self.config.factor + self.config.shift * ones_BT)
"""
LATE = "class Grader(Component):\n    @hookimpl\n    async def hookline_reward(self, rollout):\n        return torch.arange(8).float()\n"


def test_wrappers_act_in_the_listed_order_and_see_numbers(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    paths = plugin(SCALE, "scale"), plugin(LATE, "grader")
    double, up = {"use": "scale", "name": "double", "factor": 2}, {"use": "scale", "name": "up", "shift": 1}
    for name, wrap, expected in (("a", [double, up], 2 * 3.5 + 1), ("b", [up, double], 2 * (3.5 + 1))):
        run = hookline.run(tiny(reward="grader", wrap=wrap, steps=1), plugins=paths, out=tmp_path / name)
        [(_, _, figures)] = rows(run)
        assert figures["reward"] == pytest.approx(expected)
        assert figures["reward/grader"] == 3.5


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("yield", r"hookline_score returned nothing, not Scored → return scored.with_reward"),
        ("result = yield\n            yield\n            return result", r"hookline_score yields twice"),
        ("if len(rollout): return\n            yield", r"hookline_score.*without yielding"),
        (
            "result = yield\n            result.reward_BT.mul_(2)\n            return result",
            r"changed 'reward_BT' in place",
        ),
        (
            "result = yield\n            return result.with_reward(result.reward_BT / 0)",
            r"reward_BT is (nan|inf) in sample",
        ),
        ("raise KeyError('before')\n            yield", r"failed in hookline_score: KeyError"),
        (
            "yield\n            raise StopIteration",
            r"failed in hookline_score: RuntimeError: generator raised StopIteration",
        ),
        ("yield\n            raise GeneratorExit", r"failed in hookline_score: GeneratorExit"),
    ],
    ids=["forgets-to-return", "twice", "returns-early", "in-place", "not-finite", "raises", "stops", "exits"],
)
def test_a_wrapper_that_breaks_its_promise(body: str, sentence: str, plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(
        f"""
    class Mine(Component):
        @hookimpl(wrapper=True)
        def hookline_score(self, rollout):
            {body}
    """
    )
    with pytest.raises(HooklineError, match=sentence) as caught:
        hookline.run(tiny(wrap="mine"), plugins=[path], out=tmp_path / "run")
    assert "wrapper 'mine' (mine.py" in str(caught.value)


# -- a plugin's own exception


def test_an_exception_shows_the_sentence_and_the_plugins_own_frames(
    plugin: Write, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hookline.cli import main

    path = plugin(
        JUDGE + "        return helper(rollout)\n\ndef helper(rollout):\n    return rollout.no_such_thing\n", "grader"
    )
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(json.dumps(tiny(reward="grader")))
    code = main(["run", str(experiment), "-p", path, "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert code == 5
    first, rest = said.split("\n", 1)
    assert re.match(
        r"PluginError: reward 'grader' \(grader\.py \w+\) failed in hookline_reward: AttributeError: .*no_such_thing",
        first,
    )
    assert "in hookline_reward" in rest
    assert "in helper" in rest
    assert "return rollout.no_such_thing" in rest
    assert "plugins.py" not in rest, "our frames are only in the way"
    assert "Traceback" not in said


# -- late answers

ASKED = """
    import asyncio, os
    from pathlib import Path

    def folder():
        return Path(os.environ["ASKED"])

    class Grader(Component):
        @hookimpl
        async def hookline_reward(self, ctx, rollout):
            async def ask(row):
                sample = int(rollout.sample_B[row])
                with (folder() / "asked").open("a") as file:
                    file.write(f"{ctx.evaluating} {sample}\\n")
                if sample % 8 == 5:
                    await asyncio.sleep(30)
                await asyncio.sleep(0.01 * (8 - row))
                return sample % 8 + float((folder() / "mood").read_text())
            return await ctx.each(rollout, ask, timeout=0.4)

    class Stop(Component):
        @hookimpl(wrapper=True)
        def hookline_update(self, ctx):
            if ctx.step == 1 and (folder() / "stop").exists():
                raise RuntimeError("power cut")
            return (yield)
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setenv("ASKED", str(tmp_path))
    (tmp_path / "mood").write_text("0")
    return lambda: (tmp_path / "asked").read_text().splitlines()


def test_late_answers_are_journaled_and_a_resume_reads_the_journal(
    asked: Callable[[], list[str]], plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    path = plugin(ASKED)
    experiment = tiny(reward="grader", wrap="stop", steps=2, save={"every": 1})
    whole = hookline.run(experiment, plugins=[path], out=tmp_path / "whole")
    assert sorted(asked()) == sorted(f"False {sample}" for sample in range(16)), "each row once, the slow one too"
    assert [figures["unjudged"] for _, _, figures in rows(whole)] == [1, 1]
    assert rows(whole)[0][2]["reward"] == pytest.approx((0 + 1 + 2 + 3 + 4 + 6 + 7) / 7)
    assert len((tmp_path / "whole/journal.jsonl").read_text().splitlines()) == 16

    (tmp_path / "stop").touch()
    with pytest.raises(PluginError, match="power cut"):
        hookline.run(experiment, plugins=[path], out=tmp_path / "cut")
    (tmp_path / "stop").unlink()
    (tmp_path / "mood").write_text("100")  # who is asked again would now say something else
    count = len(asked())
    cut = hookline.run(experiment, plugins=[path], out=tmp_path / "cut")
    assert len(asked()) == count, "nobody is asked twice"
    assert rows(cut) == rows(whole)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_an_evaluation_asks_anew_each_time(
    asked: Callable[[], list[str]], plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    evaluate = {"every": 1, "rows": 2, "prompts": tiny()["phases"][0]["rollout"]["prompts"], "reward": ["grader"]}
    path = plugin(ASKED)
    hookline.run(tiny(evaluate=[evaluate], steps=2), plugins=[path], out=tmp_path / "run")
    assert asked().count("True 0") == 3, "before the first step and after each: the policy has changed in between"


def test_an_async_reward_is_held_to_the_same_promises(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    late = "class Grader(Component):\n    @hookimpl\n    async def hookline_reward(self, rollout):\n        {}\n"
    for name, body, sentence in (
        ("raises", "raise ValueError('out')", "reward 'grader' .* failed in hookline_reward: ValueError: out"),
        ("short", "return torch.zeros(3)", r"returned \[3\] for 8 rows"),
        ("sparse", "return torch.zeros(8).to_sparse()", r"returned a tensor that is sparse"),
        ("ends", "return next(iter([]))", r"failed in hookline_reward: RuntimeError: coroutine raised StopIteration"),
        ("in-place", "rollout.token_ids_BT.zero_(); return torch.zeros(8)", "changed 'token_ids_BT' in place"),
    ):
        path = plugin(late.format(body), "grader")
        err = refusal(PluginError, tiny(reward="grader"), path, run=tmp_path / name)
        assert re.search(sentence, str(err)), err


# -- state

COUNTS = """
    class Mine(Component):
        count, mean_B, seen = 0, torch.zeros(2, dtype=torch.float64), ()

        @hookimpl
        def hookline_advantage(self, ctx, scored):
            self.count += 1
            self.mean_B = self.mean_B * 0.9 + scored.reward_B[:2].double()
            self.seen = [*self.seen, {"step": ctx.step, "limit": float("inf"), "none": None}]
            return scored.advantaged(scored.reward_B - self.mean_B.mean() + 0.01 * self.count * len(self.seen))

        def state_dict(self):
            return {"count": self.count, "mean": {"of": self.mean_B}, "seen": self.seen}

        def load_state_dict(self, state):
            assert [s["step"] for s in state["seen"]] == list(range(state["count"]))
            assert all(s["limit"] == float("inf") and s["none"] is None for s in state["seen"])
            self.count, self.mean_B, self.seen = state["count"], state["mean"]["of"], state["seen"]

    class Cut(Component):
        @hookimpl(wrapper=True)
        def hookline_update(self, ctx):
            import os
            if ctx.step == int(os.environ.get("CUT", -1)):
                raise RuntimeError("power cut")
            return (yield)
"""


def weights(folder: Path, phase: str = "rl") -> str:
    return str(json.loads((folder / f"phases/{phase}/manifest.json").read_text())["weights"])


def test_a_components_state_survives(
    plugin: Write, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin(COUNTS)
    experiment = tiny(advantage="mine", wrap="cut", steps=5, save={"every": 2})
    whole = hookline.run(experiment, plugins=[path], out=tmp_path / "whole")
    monkeypatch.setenv("CUT", "3")
    with pytest.raises(PluginError, match="power cut"):
        hookline.run(experiment, plugins=[path], out=tmp_path / "cut")
    monkeypatch.delenv("CUT")
    cut = hookline.run(experiment, plugins=[path], out=tmp_path / "cut")
    assert cut.resumed
    assert rows(cut) == rows(whole)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_a_component_that_cannot_read_its_state_is_named(
    plugin: Write, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin(COUNTS.replace('state["seen"]', 'state["sene"]'))
    experiment = tiny(advantage="mine", wrap="cut", steps=5, save={"every": 2})
    monkeypatch.setenv("CUT", "3")
    with pytest.raises(PluginError, match="power cut"):
        hookline.run(experiment, plugins=[path], out=tmp_path / "cut")
    monkeypatch.delenv("CUT")
    err = refusal(PluginError, experiment, path, run=tmp_path / "cut")
    assert re.search(r"advantage 'mine' \(mine\.py \w+\) failed in load_state_dict: KeyError", str(err)), err


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (
            "{'fine': 1, 'how': lambda: 1}",
            r"advantage 'mine' \(mine\.py \w+\).* keeps 'how' in its state, a function, which cannot be saved",
        ),
        ("{'file': open(__file__)}", r"advantage 'mine' \(mine\.py \w+\).* keeps 'file' in its state, a TextIOWrapper"),
        (
            "{'deep': {'list': [1, {2, 3}]}}",
            r"advantage 'mine' \(mine\.py \w+\).* keeps 'deep/list/1' in its state, a set",
        ),
        (
            "{'deep': {1: 2}}",
            r"advantage 'mine' \(mine\.py \w+\).* keeps 'deep' in its state, a dict whose keys are not all text",
        ),
    ],
    ids=["function", "file", "set", "keys"],
)
def test_state_that_cannot_be_saved_is_named_before_the_first_step(
    kept: str, sentence: str, plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    path = plugin(
        f"""
    class Mine(Component):
        @hookimpl
        def hookline_advantage(self, scored):
            return scored.advantaged(scored.reward_B)

        def state_dict(self):
            return {kept}
    """
    )
    err = refusal(CheckpointError, tiny(advantage="mine"), path, run=tmp_path / "run")
    assert re.search(sentence, str(err)), err
    assert not hookline.Run.read(tmp_path / "run").rows()


def test_state_without_a_way_back_is_refused_before_the_first_step(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(COUNTS.replace("def load_state_dict(self, state)", "def other(self, state)"))
    with pytest.raises(PluginError, match="the component saves state but cannot load it → define load_state_dict"):
        hookline.run(tiny(advantage="mine", steps=3), plugins=[path], out=tmp_path / "run")
    assert hookline.Run.read(tmp_path / "run").rows() == []


# -- randomness


def test_a_plugin_that_draws_from_or_reseeds_the_global_generator_changes_nothing(
    plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    draws = (
        "import random, numpy\nrandom.seed(3); numpy.random.seed(3); torch.manual_seed(3); torch.rand(ctx.step + 1)\n"
    )
    figures = []
    for name, body in (("quiet", ""), ("draws", draws)):
        path = plugin(judge(body + "return good * (rollout.token_ids_BT.sum(1) % 7)"), "grader")
        run = hookline.run(tiny(reward="grader", steps=3), plugins=[path], out=tmp_path / name)
        figures.append((rows(run), weights(tmp_path / name)))
    assert figures[0] == figures[1]


def test_a_components_own_randomness_depends_on_its_key_alone(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    source = judge("return torch.rand(8, generator=ctx.rng('noise', 4))")
    figures = []
    for name, reward in (("alone", ["grader"]), ("with", [{"use": "grader", "name": "other", "weight": 0}, "grader"])):
        run = hookline.run(tiny(reward=reward, steps=2), plugins=[plugin(source, "grader")], out=tmp_path / name)
        figures.append([f["reward/grader"] for _, _, f in rows(run)])
    assert figures[0] == figures[1]
    assert figures[0][0] != figures[0][1]
    assert [f["reward/other"] for _, _, f in rows(run)] != figures[0]


# -- nothing that is not named is imported


def test_listing_imports_nothing(distribution: Any, tmp_path: Path) -> None:
    distribution("hookline-mine", "0.7", {"advantage": "mine"}, "raise SystemExit('I was imported')")
    code = (
        "import sys, contextlib, io\n"
        "from hookline.cli import main\n"
        "out = io.StringIO()\n"
        "with contextlib.redirect_stdout(out): code = main(['plugins', 'list'])\n"
        "heavy = [m for m in ('torch', 'transformers', 'hookline_mine') if m in sys.modules]\n"
        "heavy += [m for m in sys.modules if m.startswith('hookline_plugins.')]\n"
        "assert code == 0 and 'hookline-mine' in out.getvalue(), out.getvalue()\n"
        "assert not heavy, heavy\n"
    )
    home = Path(hookline.__file__).parents[1]
    paths = [str(tmp_path / "site"), str(home), str(home.parent / "plugins")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_a_run_does_not_name_is_not_imported(distribution: Any, tiny: Tiny) -> None:
    imported = distribution("hookline-mine", "0.7", {"advantage": "mine"}, ONE)
    plan(tiny())
    assert imported not in sys.modules
    plan(tiny(advantage="mine"))
    assert imported in sys.modules


def test_the_global_generator_is_left_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    hookline.run(tiny(steps=1), out=tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
