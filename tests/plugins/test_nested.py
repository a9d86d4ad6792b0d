"""Components inside components: named in a config field, planned, explained, checked, kept and blamed under their owner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

import hookline
from hookline.cli.show import explain_json, explain_text
from hookline.contract.fields import nested
from hookline.errors import ExperimentError, HooklineError, PluginError
from hookline.loop.api import plan

LOOSE = '''
import hookline
from hookline import Component, Environment, Metric, Turn, Use, hookimpl
from hookline_plugins.rollouts.generate import Generate


class Calc(Environment):
    """Adds one to what it is told."""

    name = "calc"
    metrics = (Metric("calc/steps", "replies answered"),)

    class Config(hookline.Config):
        digits: int = 2
        """How many."""

    def setup(self, ctx):
        EVENTS.append(f"setup {self.instance}")
        self.steps = 0

    @property
    def claims(self):
        return {"calculator"} if self.config.digits == 6 else frozenset()

    @property
    def needs(self):
        return {"abacus"} if self.config.digits > 8 else frozenset()

    async def reset(self, record, rng):
        return Turn(text="0")

    async def step(self, reply):
        self.steps += 1
        return Turn(text=str(self.steps), terminated=True)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Turns(Generate):
    """Samples, and has a word with its environment."""

    name = "chats"

    class Config(Generate.Config):
        environment: Use[Environment]
        """Whom it talks to."""
        tools: tuple[Use[Environment], ...] = ()
        """Whom it asks."""
        spare: Use["environment"] | None = None
        """Whom it does not need."""

    def setup(self, ctx):
        EVENTS.append("setup chats")
        super().setup(ctx)

    @hookimpl
    def hookline_rollout(self, ctx):
        environment = self.parts["environment"]
        if environment.config.digits == 7:
            raise ValueError("no sevens")
        environment.steps += 1
        ctx.log("calc/steps", environment.steps)
        return super().hookline_rollout(ctx)


class Gives(Component):
    """No environment."""

    name = "gives"

    @hookimpl
    def hookline_reward(self, rollout):
        return rollout.length_B.float()


EVENTS = []
'''


@pytest.fixture
def loose(tmp_path: Path) -> str:
    path = tmp_path / "lab.py"
    path.write_text(LOOSE)
    return str(path)


def experiment(environment: Any = "calc", **options: Any) -> dict[str, Any]:
    rollout = {"use": "chats", "prompts": "builtin:walks", "rows": 3, "max_new_tokens": 10, "samples_per_prompt": 2}
    phase = {
        "name": "rl",
        "steps": 2,
        "rollout": {**rollout, "environment": environment, **options},
        "reward": {"use": "task", "task": "builtin:walks"},
        "update": "rloo",
        "evaluate": [{"rows": 4, "reward": {"use": "task", "task": "builtin:walks"}}],
        "save": {"every": 1},
    }
    return {
        "name": "nested",
        "threads": 1,
        "tokenizer": {"train": "words", "on": "builtin:walks/walks"},
        "model": {"build": "tabular", "task": "builtin:walks", "sees": ["position", "last"], "context": 12},
        "phases": [phase],
        "trackers": [],
    }


def refused(loose: str, *arguments: Any, **options: Any) -> HooklineError:
    with pytest.raises(HooklineError) as caught:
        plan(experiment(*arguments, **options), plugins=[loose])
    return caught.value


def test_it_is_planned_under_its_owner(loose: str) -> None:
    planned = plan(experiment({"use": "calc", "name": "sums", "digits": 4}, tools=["calc", "calc"]), plugins=[loose])
    [phase] = planned.phases
    assert [slot.label for slot in phase.rollout.every()] == [
        "rollout/chats",
        "rollout/chats/environment",
        "rollout/chats/tools/0",
        "rollout/chats/tools/1",
    ]
    inner = phase.rollout.inner["environment"]
    assert (inner.kind, inner.instance, inner.config.digits, inner.path) == (
        "environment",
        "sums",
        4,
        ("phases", 0, "rollout", "environment"),
    )
    assert phase.rollout.component.parts["environment"] is inner.component
    assert ("environment", "calc") in {(offer.kind, offer.name) for offer in planned.offers}
    assert [slot.label for slot in phase.evaluations[0].rollout.every()][1] == (
        "evaluate/heldout/rollout/chats/environment"
    )


def test_it_is_explained_below_its_owner(loose: str) -> None:
    planned = plan(experiment(), plugins=[loose])
    lines = explain_text(planned).splitlines()
    [at] = [i for i, line in enumerate(lines) if line.startswith("  rollout ")]
    assert lines[at + 1].split()[:3] == ["rollout/chats/environment", "plays", "calc"]
    [rollout] = [hook for hook in explain_json(planned)["phases"][0]["hooks"] if hook["hook"] == "rollout"]
    assert rollout["parts"]["environment"]["component"] == "calc"


def test_it_is_set_up_before_its_owner_kept_and_in_the_manifest(loose: str, tmp_path: Path) -> None:
    run = hookline.run(experiment(), out=tmp_path / "run", plugins=[loose])
    assert [row["metrics"]["calc/steps"] for row in run.rows()[1:]] == [1, 2]
    plugins = json.loads((run.directory / "run.json").read_text())["plugins"]
    assert {"environment", "engine"} <= {offer["kind"] for offer in plugins}
    module = sys.modules[plan(experiment(), plugins=[loose]).phases[0].rollout.cls.__module__]
    assert module.EVENTS[:2] == ["setup calc", "setup chats"]


def test_its_state_comes_back_after_a_resume(loose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = hookline.run(experiment(), out=tmp_path / "straight", plugins=[loose])
    from hookline.runs.run import Run

    commit = Run.commit_row

    def interrupted(self: Run, *row: Any) -> None:
        commit(self, *row)
        if row[1] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "commit_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hookline.run(experiment(), out=tmp_path / "again", plugins=[loose])
    monkeypatch.undo()
    again = hookline.run(experiment(), out=tmp_path / "again", plugins=[loose])
    assert [row["metrics"] for row in again.rows()] == [row["metrics"] for row in straight.rows()]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ("calx", "no environment 'calx' is installed; did you mean 'calc'?"),
        ("gives", "no environment 'gives' is installed; 'gives' is offered as reward"),
        ({"use": "calc", "digit": 3}, "rollout.environment has no option 'digit'; did you mean 'digits'?"),
        ({"use": "calc", "weight": 2}, "'calc' has a weight"),
        ({"use": "calc", "digits": 9}, "'calc' needs 'abacus', which nothing in phase 'rl' gives"),
        (3, "environment"),
        (None, "environment"),
    ],
)
def test_what_is_wrong_with_it_is_told_before_a_weight_loads(loose: str, environment: Any, sentence: str) -> None:
    assert sentence in str(refused(loose, environment))


def test_the_line_of_the_file_is_told(loose: str, tmp_path: Path) -> None:
    described = experiment({"use": "calc", "digit": 3})
    text = json.dumps(described, indent=1)
    path = tmp_path / "nested.yaml"
    path.write_text(text)
    line = next(i for i, one in enumerate(text.splitlines(), 1) if '"digit"' in one)
    with pytest.raises(ExperimentError, match=rf"line {line}: phases.rl.rollout.environment has no option 'digit'"):
        plan(str(path), plugins=[loose])


def test_two_that_claim_one_thing_are_refused(loose: str) -> None:
    assert "both claim 'calculator'" in str(
        refused(loose, {"use": "calc", "digits": 6}, tools=[{"use": "calc", "digits": 6}])
    )


def test_an_override_reaches_into_it(loose: str) -> None:
    [phase] = plan(experiment(), ["phases.rl.rollout.environment.digits=5"], plugins=[loose]).phases
    assert phase.rollout.inner["environment"].config.digits == 5


def test_blame_falls_on_its_owner_by_name(loose: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"rollout 'chats' .* failed in hookline_rollout: ValueError: no sevens"):
        hookline.run(experiment({"use": "calc", "digits": 7}), out=tmp_path / "run", plugins=[loose])


def test_one_more_has_the_same_config_and_parts_of_its_own(loose: str) -> None:
    component = plan(experiment(), plugins=[loose]).phases[0].rollout.component
    other = component.another()
    assert (other.config, other.instance) == (component.config, component.instance)
    assert other is not component
    assert other.parts["environment"] is not component.parts["environment"]


def test_an_option_is_shown_with_its_kind(loose: str) -> None:
    from hookline.cli.show import show_json

    [shown] = [item for item in show_json("chats", [loose]) if item["kind"] == "rollout"]
    assert shown["options"]["environment"]["type"] == "component of kind environment"
    assert shown["options"]["spare"]["type"] == "component of kind environment"


@pytest.mark.parametrize("target", ["enviroment", int])
def test_what_is_no_kind_is_refused_where_it_is_written(target: Any) -> None:
    with pytest.raises(TypeError, match="not a kind or the base class of a kind"):
        hookline.Use[target]


def test_a_kind_without_a_base_class_is_named_by_its_word() -> None:
    class Asks(hookline.Config):
        one: hookline.Use[Literal["reward"]]
        """One."""
        more: tuple[hookline.Use[Literal["reward"]], ...] = ()
        """Several."""

    found = list(nested(Asks.model_validate({"one": "length", "more": [{"use": "length", "per": 2}]})))
    assert [(part.key, part.kind, part.base) for part in found] == [("one", "reward", None), ("more/0", "reward", None)]


def test_a_base_class_is_kept() -> None:
    class Asks(hookline.Config):
        head: hookline.Use[hookline.Head]
        """One of four bases of its kind."""

    [part] = nested(Asks.model_validate({"head": "lora"}))
    assert (part.kind, part.base, part.use.use) == ("model", hookline.Head, "lora")


CONSTRUCTOR = '''
import hookline, socket, subprocess, threading
from hookline import Component, hookimpl

class Eager(Component):
    """Cannot wait."""
    name = "eager"
    def __init__(self, config):
        super().__init__(config)
        BODY

    @hookimpl
    def hookline_reward(self, rollout):
        return rollout.length_B.float()
'''


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("self.file = open(__file__)", "opens a file"),
        ("self.socket = socket.socket()", "opens a socket"),
        ("subprocess.run(['true'])", "opens a process"),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "opens a thread"),
        ("try: open(__file__)\n        except Exception: pass", "opens a file"),
        ("raise ValueError('no luck')", "failed in its constructor: ValueError: no luck"),
        ("raise hookline.DataError('no rows', 'bring some')", "no rows"),
    ],
)
def test_a_constructor_opens_nothing(body: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "eager.py"
    path.write_text(CONSTRUCTOR.replace("BODY", body))
    described = experiment()
    described["phases"][0] |= {
        "rollout": {"use": "generate", "prompts": "builtin:walks", "max_new_tokens": 10},
        "reward": "eager",
    }
    with pytest.raises(HooklineError) as caught:
        plan(described, plugins=[str(path)])
    said = str(caught.value)
    assert sentence in said
    assert "reward 'eager' (eager.py" in said
    if "opens" in sentence:
        assert isinstance(caught.value, PluginError)
        assert said.endswith("→ open it in setup(ctx)")


def test_imports_in_a_constructor_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text("FOUND = 1")
    body = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import slow_to_import; sys.path.pop(0)"
    path = tmp_path / "eager.py"
    path.write_text(CONSTRUCTOR.replace("BODY", body))
    described = experiment()
    described["phases"][0] |= {
        "rollout": {"use": "generate", "prompts": "builtin:walks", "samples_per_prompt": 2, "max_new_tokens": 10},
        "reward": "eager",
    }
    assert plan(described, plugins=[str(path)]).phases[0].rewards


ENGINE = '''
from hookline import Completion, Engine
from hookline_plugins.rollouts.generate import Generate

class Fixed(Engine):
    """Says one thing."""
    gives = {"exact"}

    async def draw(self, request):
        return Completion()

class Picky(Generate):
    """Wants an engine that combines models."""
    needs = {"engine:combine"}
'''


def test_an_engine_that_cannot_do_what_a_rollout_needs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "engines.py"
    path.write_text(ENGINE)
    described = experiment()
    rollout = {"use": "picky", "prompts": "builtin:walks", "samples_per_prompt": 2, "max_new_tokens": 10}
    described["phases"][0] |= {"rollout": rollout, "engine": "fixed"}
    with pytest.raises(ExperimentError) as caught:
        plan(described, plugins=[str(path)])
    assert "'picky' needs an engine that gives 'combine', but 'fixed' does not; it gives exact" in str(caught.value)
    assert "name another `engine`" in str(caught.value)


def test_a_phase_has_an_engine(tmp_path: Path) -> None:
    path = tmp_path / "engines.py"
    path.write_text(ENGINE)
    described = experiment()
    described["phases"][0]["rollout"] = {
        "use": "generate",
        "prompts": "builtin:walks",
        "samples_per_prompt": 2,
        "max_new_tokens": 10,
    }
    assert plan(described).phases[0].engine.offer.name == "local"
    described["phases"][0]["engine"] = "fixed"
    planned = plan(described, plugins=[str(path)])
    assert planned.phases[0].engine.instance == "fixed"
    assert "  engine     draws    fixed " in explain_text(planned)
    described["phases"][0]["engine"] = ["fixed"]
    with pytest.raises(ExperimentError, match="engine"):
        plan(described, plugins=[str(path)])


def test_a_run_begun_before_there_were_engines_goes_on(tmp_path: Path, loose: str) -> None:
    run = hookline.run(experiment(), out=tmp_path / "run", plugins=[loose])
    path = run.directory / "experiment.json"
    written = json.loads(path.read_text())
    assert written["phases"][0].pop("engine")["use"] == "local"
    path.write_text(json.dumps(written))
    assert run.experiment["phases"][0]["engine"]["use"] == "local"
    hookline.run(experiment(), out=tmp_path / "run", plugins=[loose])
    other = experiment()
    other["phases"][0]["engine"] = {"use": "local", "name": "another"}
    with pytest.raises(HooklineError, match=r"phases.\w+.engine.name was null, is \"another\""):
        hookline.run(other, out=tmp_path / "run", plugins=[loose])


COMMAND = '''
from hookline import Command

class Mine(Command):
    """A verb."""
    name = "NAME"
    def run(self, out):
        return 0
'''


def test_a_command_cannot_take_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hookline.registry import offers

    mine = offers.Offer("command", "compare", "somewhere:Compare", "hookline", "0", built_in=True)
    monkeypatch.setattr(offers, "_installed", lambda: (mine,))
    path = tmp_path / "verbs.py"
    path.write_text(COMMAND.replace("NAME", "compare"))
    [taken] = offers.loose(str(path))
    assert taken.problem == "'compare' is a built-in command, and a plugin cannot use a built-in name; rename it"
    with pytest.raises(PluginError, match="a plugin cannot use a built-in name") as caught:
        offers.find("command", "compare", (mine, taken))
    assert caught.value.hint
    path.write_text(COMMAND.replace("NAME", "contrast"))
    [free] = offers.loose(str(path))
    assert not free.problem


def test_a_new_kind_of_a_phase_is_a_row_of_the_table(tmp_path: Path) -> None:
    """In a process of its own: the schema is made from the table when it is imported."""
    path = tmp_path / "kind.py"
    path.write_text(
        "from hookline.contract import kinds\n"
        "base = ('hookline.contract.engine:Engine',)\n"
        "kinds.KINDS['store'] = kinds.Kind('store', 'keeps judgements', 'phase', 'store', base, verb='keeps')\n"
        "from hookline.config.experiment import Phase\n"
        "read = Phase.model_validate({'name': 'a', 'steps': 1, 'rollout': 'x', 'update': 'y', 'store': 'files'})\n"
        "print(read.uses('store')[0].use, list(Phase.model_fields))\n"
    )
    done = subprocess.run([sys.executable, str(path)], env={**os.environ}, capture_output=True, text=True)
    assert done.stdout.startswith("files "), done.stderr
    assert "'store'" in done.stdout
