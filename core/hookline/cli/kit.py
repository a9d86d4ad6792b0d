"""`hookline plugins new` and `hookline plugins check`: start a plugin, and check that it keeps the contract."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookline.contract.component import Component
from hookline.contract.kinds import KINDS, Kind, of_phase, taught
from hookline.errors import ExperimentError, PluginError, nearest
from hookline.registry import offers

if TYPE_CHECKING:
    from hookline.testing import Report

__all__ = ["check", "create"]

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
ASKED = {kind.asked: kind for kind in taught()}
"""The values that `--kind` accepts; it also accepts a kind's own name."""
WITH_OPTIONS = {
    "update": "{use: NAME, lr: 3e-3}",
    "reward": "[keyword-coverage, {use: NAME, weight: 0.1}]",
    "rollout": "{use: NAME, prompts: builtin:keywords, rows: 32}",
}
"""How the generated experiment names the new component, where its name alone is not enough."""
TRIED = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def create(name: str, kind: str, parent: Path) -> str:
    """Write a distribution that works without changes; returns what to do next."""
    kind = next((one.asked for one in taught() if one.name == kind), kind)
    if kind not in ASKED:
        raise ExperimentError(f"there is no kind '{kind}'{nearest(kind, ASKED)}", f"choose from {', '.join(ASKED)}")
    if not TRIED.fullmatch(name) or len(name) > 40:
        raise ExperimentError(
            f"'{name}' is not a valid plugin name",
            "use lower-case letters and digits, with '-' between words, at most 40 characters",
        )
    group = ASKED[kind].name
    taken = any(offer.built_in and (offer.kind, offer.name) == (group, name) for offer in offers.offers())
    if taken or (group == "command" and name in offers.VERBS):
        raise ExperimentError(
            f"'{name}' is a built-in {group}, and a plugin cannot use a built-in name", "choose another name"
        )
    package = f"hookline_{name.replace('-', '_')}"
    if importlib.util.find_spec(package):
        raise ExperimentError(
            f"the package {package} is already installed", "choose another name, or uninstall that one"
        )
    folder = parent / f"hookline-{name}"
    if folder.exists():
        raise ExperimentError(f"{folder} already exists", "choose another name or --dir, or remove the folder")
    try:
        for path, text in files(name, kind, package).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as err:
        raise ExperimentError(f"{folder} cannot be written: {err.strerror or err}", "choose another --dir") from None
    return (
        f"{folder} offers the {group} '{name}' in src/{package}/__init__.py. Try it:\n"
        f"  cd {folder}\n  pip install -e .\n  {try_command(name, kind)}\n  pytest"
    )


def files(name: str, kind: str, package: str) -> dict[str, str]:
    """Path → content of everything in the new distribution."""
    group, cls = ASKED[kind].name, "".join(word.capitalize() for word in name.split("-"))
    own = TEMPLATES / f"{kind}.py"
    component = own.read_text(encoding="utf-8") if own.exists() else from_base(ASKED[kind])
    tried = {f"try-{name}.yaml": experiment(name, kind)} if in_experiment(kind) else {}
    return {
        "pyproject.toml": PYPROJECT.format(name=name, package=package, group=group, cls=cls, kind=kind),
        "README.md": README.format(name=name, group=group, package=package, command=try_command(name, kind))
        + (EXPLAINED.format(name=name) if tried else CHECKED.format(name=name)),
        f"src/{package}/__init__.py": component.replace("Example", cls).replace("NAME", name),
        f"tests/test_{package}.py": TEST.format(package=package, cls=cls),
        **tried,
    }


def from_base(kind: Kind) -> str:
    """The template of a kind without a template file: a subclass of its base in which each method calls the base's own."""
    base = kind.bases()[0]
    means = f"{kind.means[0].upper()}{kind.means[1:]}."
    lines = [f'"""NAME: the kind `{kind.name}` for Hookline."""', "", f"from hookline import {base.__name__}", "", ""]
    lines += [f"class Example({base.__name__}):", f'    """{means}"""']
    for name, method in vars(base).items():
        if name.startswith(("_", "hookline_")) or not inspect.isfunction(method) or hasattr(Component, name):
            continue
        asynchronous = inspect.iscoroutinefunction(method)
        arguments = [*inspect.signature(method).parameters][1:]
        lines += ["", f"    {'async ' if asynchronous else ''}def {name}({', '.join(['self', *arguments])}):"]
        if about := inspect.getdoc(method):
            lines.append(f'        """{about.splitlines()[0]}"""')
        lines.append(f"        return {'await ' if asynchronous else ''}super().{name}({', '.join(arguments)})")
    return "\n".join(lines) + "\n"


def in_experiment(kind: str) -> bool:
    """Whether an experiment can name such a component itself; others are named by components, or on the command line."""
    return ASKED[kind].scope in ("phase", "experiment") or kind == "task"


def try_command(name: str, kind: str) -> str:
    return f"hookline run try-{name}.yaml" if in_experiment(kind) else f"hookline plugins check {name}"


PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "hookline-{name}"
version = "0.1.0"
description = "The {group} '{name}' for Hookline."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["hookline>=0.1"]

[project.entry-points."hookline.{group}"]
{name} = "{package}:{cls}"

[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

README = """# hookline-{name}

The {group} `{name}` for Hookline, in `src/{package}/__init__.py`.

    pip install -e .
    {command}
    pytest

"""
EXPLAINED = """`hookline plugins check {name}` reports, law by law, whether it keeps the contract; `hookline explain try-{name}.yaml` shows
which component answers each hook.
"""
CHECKED = """The check reports, law by law, whether it keeps the contract; `hookline plugins show {name}` shows its options.
"""

TEST = """from hookline.testing import conformance

from {package} import {cls}

test_law = conformance({cls})
"""


def experiment(name: str, kind: str) -> str:
    """An experiment that uses the component and takes some seconds."""
    parts = {
        "rollout": "    rollout: {use: generate, prompts: builtin:keywords, rows: 8, samples_per_prompt: 4, max_new_tokens: 12}\n",
        "reward": "    reward: keyword-coverage\n",
        "advantage": "    advantage: leave-one-out\n",
        "update": "    update: {use: reinforce, lr: 3e-3}\n",
    }
    if kind == "task":
        parts["rollout"] = parts["rollout"].replace("builtin:keywords", "task:NAME")
    if kind in ("rollout", "algorithm"):
        parts["advantage"] = ""
    if kind == "feedback":
        parts |= {"advantage": "", "update": ""}
    about = ASKED[kind]
    if kind == "task":
        parts["reward"] = "    reward: {use: task, task: 'task:NAME'}\n"
    elif about.scope == "phase":
        parts[about.name] = f"    {about.section}: {WITH_OPTIONS.get(about.name, 'NAME')}\n"
    phase = "".join(parts.get(kind.name, "") for kind in of_phase())
    text = (
        f"# Some seconds on a laptop: hookline run try-{name}.yaml\n"
        f"name: try-{name}\nseed: 1\n"
        f"tokenizer: {{train: words, on: '{'task:NAME' if kind == 'task' else 'builtin:keywords'}', vocabulary: 300}}\n"
        "model: {build: gpt2, layers: 1, width: 32, context: 64}\n"
        "phases:\n  - name: try\n"
        f"{phase}    steps: 10\n"
        f"trackers: [console{', NAME' if kind == 'tracker' else ''}]\n"
    )
    return text.replace("NAME", name)


def check(name: str, overrides: Sequence[str], plugins: Sequence[str], processes: int = 1) -> list[Report]:
    """The reports on every component of that name or distribution. Raises HooklineError if there is none."""
    from hookline.config.overrides import parse_value
    from hookline.testing import check as judge

    options: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ExperimentError(f"'{override}' is not an option", "write OPTION=VALUE, e.g. gamma=0.9")
        options[key] = parse_value(text)
    found = offers.by_name(name, offers.available(plugins))
    usable = {(offer.kind, offer.name) for offer in found if not offer.problem}
    barred = next((offer for offer in found if offer.problem and (offer.kind, offer.name) not in usable), None)
    if barred:
        raise PluginError(f"{barred} cannot be used: {barred.problem}", "hookline plugins list shows all")
    found = [offer for offer in found if not offer.problem]
    reports = [judge(offer, **options) for offer in found if KINDS[offer.kind].laws or len(found) == 1]
    if processes == 1:
        return reports
    from hookline.testing.ranks import Candidate, compared

    steps = [report for report in reports if "loop" in KINDS[report.offer.kind].laws]
    if not steps:
        raise ExperimentError(f"'{name}' takes no steps, so --processes has nothing to compare", "leave it out")
    verdicts = compared([Candidate(report.offer, report.options) for report in steps], processes)
    more = {id(report): (verdict,) for report, (verdict, _) in zip(steps, verdicts)}
    return [dataclasses.replace(report, verdicts=(*report.verdicts, *more.get(id(report), ()))) for report in reports]
