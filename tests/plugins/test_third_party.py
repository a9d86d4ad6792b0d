"""Somebody else's distribution, installed as a user would, is used like a built-in; broken neighbours stay harmless."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments import (
    ROOT,
    Environment,
    Said,
    clean,
    copy_sources,
    make_environment,
    manifest_of,
    rows_of,
    write_wheel,
)

# stands around the update, changes nothing, and pulls the plug when told to
PLUG = """
import os, signal
from hookline import Component, hookimpl

class Plug(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx):
        result = yield
        if os.environ.get("PULL_AT") == str(ctx.step):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
"""

HEAD = "from hookline import Component, hookimpl\n\nclass Mine(Component):\n"
NEIGHBOURS = {
    # distribution: version, kind, name, source, what is said when a run names it
    "hookline-broken": ("0.3", "advantage", "broken", "import flux_capacitor\n", "ModuleNotFoundError: No module named 'flux_capacitor'"),
    "hookline-quits": ("1.1", "advantage", "quits", "import sys\nsys.exit(0)\n", "could not be imported: it calls sys.exit"),
    "hookline-typo": (
        "2.0", "advantage", "typo", HEAD + "    @hookimpl\n    def hookline_advantages(self, scored): ...\n",
        "unknown hook 'hookline_advantages'; did you mean 'hookline_advantage'?",
    ),
    "hookline-signature": (
        "0.1", "advantage", "signature", HEAD + "    @hookimpl\n    def hookline_advantage(self, rewards): ...\n",
        "hookline_advantage takes 'rewards', which is not an argument of that hook",
    ),
    "hookline-future": (
        "9.1", "advantage", "future", HEAD + "    hook_api = '9.0'\n    @hookimpl\n    def hookline_advantage(self, scored): ...\n",
        "is written for hook API 9.0, this Hookline has",
    ),
    "hookline-usurper": (
        "6.6", "update", "ppo", HEAD + "    @hookimpl\n    def hookline_update(self, ctx, batch): ...\n",
        "'ppo' is a built-in update, and a plugin cannot use a built-in name",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Hookline, hookline-loo, and every neighbour at once."""
    folder = tmp_path_factory.mktemp("neighbours")
    neighbours = [
        write_wheel(folder, name, version, f"[hookline.{kind}]\n{offered} = {name.replace('-', '_')}:Mine\n", source)
        for name, (version, kind, offered, source, _) in NEIGHBOURS.items()
    ]
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", [*wheels.glob("*.whl"), *neighbours])


@pytest.fixture(scope="module")
def desk(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: an experiment that names `loo`, and its loose files."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "plug.py").write_text(PLUG)
    (folder / "vanilla.py").write_text((shelf / "vanilla.py").read_text())
    return folder


@pytest.fixture
def experiment(desk: Path, tiny: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    def write(name: str = "experiment", **changes: Any) -> Path:
        values = tiny(steps=6, save={"every": 2}, wrap="plug", **changes)
        values["plugins"] = [str(desk / "vanilla.py"), str(desk / "plug.py")]
        path = desk / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return write


def one_sentence(said: Said, code: int) -> str:
    """The sentence of a refusal: it stands alone on its line, with a hint and without a traceback."""
    first = said.err.splitlines()[0] if said.err else ""
    assert said.code == code, said
    assert re.match(r"\w+Error: .+ → .+", first), said.err
    assert "Traceback" not in said.err
    return first


def test_it_is_listed_from_metadata(environment: Environment) -> None:
    said = environment.run("hookline", "plugins", "list")
    assert said.code == 0
    assert re.search(r"advantage +loo +hookline-loo +0\.1\.0 +offered", said.out)
    [shown] = [line for line in said.out.splitlines() if "hookline-usurper" in line]
    assert "'ppo' is a built-in update, and a plugin cannot use a built-in name; rename it" in shown
    for name in NEIGHBOURS:
        assert name in said.out
    found = json.loads(environment.hookline("plugins", "list", "--json").out)
    [loo] = [item for item in found if item["distribution"] == "hookline-loo"]
    assert (loo["kind"], loo["name"], loo["version"], loo["problem"]) == ("advantage", "loo", "0.1.0", "")


def test_explain_says_whose_it_is(environment: Environment, experiment: Callable[..., Path]) -> None:
    said = environment.hookline("explain", experiment())
    assert said.code == 0, said.err
    assert re.search(r"advantage +answers +loo +hookline-loo 0\.1\.0, .*hookline_loo/__init__\.py:\d+", said.out)
    assert re.search(r"update +answers +vanilla +vanilla\.py \w+, .*vanilla\.py:\d+", said.out)
    assert re.search(r"update +wraps +plug", said.out)


def test_it_runs_is_recorded_and_resumes_bit_for_bit(
    environment: Environment, experiment: Callable[..., Path], desk: Path
) -> None:
    path = experiment()
    whole = environment.hookline("run", path, "--out", desk / "whole")
    assert whole.code == 0, whole.err
    assert "loo (hookline-loo 0.1.0)" in whole.out.splitlines()[0]

    about = json.loads((desk / "whole/run.json").read_text())
    [recorded] = [item for item in about["plugins"] if item["name"] == "loo"]
    assert (recorded["kind"], recorded["distribution"], recorded["version"]) == ("advantage", "hookline-loo", "0.1.0")
    assert len(recorded["sha256"]) == 64
    assert {p.name for p in (desk / "whole/plugins").iterdir()} == {"plug.py", "vanilla.py"}
    assert len({row["metrics"]["loss"] for row in rows_of(desk / "whole")}) > 1, "it learned from something"

    pulled = environment.hookline("run", path, "--out", desk / "pulled", PULL_AT="3")
    assert pulled.code == -signal.SIGKILL
    assert not (desk / "pulled/phases").exists()
    assert len(rows_of(desk / "pulled")) == 3
    resumed, again = environment.ask([["run", path, "--out", desk / name] for name in ("pulled", "whole")])
    assert resumed.code == 0, resumed.err
    assert "goes on in" in resumed.out
    assert again.code == 0, "a finished run is complete, and says so"
    assert rows_of(desk / "pulled") == rows_of(desk / "whole")
    assert manifest_of(desk / "pulled")["weights"] == manifest_of(desk / "whole")["weights"]


def test_each_neighbour_is_named_with_its_distribution_and_a_mend(
    environment: Environment, experiment: Callable[..., Path], desk: Path
) -> None:
    commands: list[list[object]] = []
    for name, (_, kind, offered, _, _) in NEIGHBOURS.items():
        use = f"{name}:{offered}"
        changes = {kind: use} | ({"advantage": "gae"} if kind == "update" else {})
        commands += [
            ["plugins", "show", use],
            ["explain", experiment(offered, **changes)],
            ["run", desk / f"{offered}.yaml", "--out", desk / offered],
        ]
    commands.append(["explain", experiment("ours", advantage="gae", update="ppo")])
    *answers, ours = environment.ask(commands)
    assert re.search(r"update +answers +ppo +hookline \d", ours.out), "who names ppo gets ours"
    said = iter(answers)
    for name, (version, _, offered, _, sentence) in NEIGHBOURS.items():
        shown, explained, run = next(said), next(said), next(said)
        assert (shown.code, explained.code) == (5, 5), name
        assert sentence in shown.out
        assert f"{name} {version}" in shown.out
        for refused in (explained, run):
            refusal = one_sentence(refused, 5)
            assert sentence in refusal
            assert f"({name} {version})" in refusal
            if offered == "broken":
                assert re.search(r'File ".*hookline_broken\.py", line 1', refused.err), "the plugin's own frame"
        assert not (desk / offered).exists(), "refused before anything is written"


def test_leaving_quietly_while_imported_never_looks_like_success(
    environment: Environment, experiment: Callable[..., Path], desk: Path
) -> None:
    said = environment.hookline("run", experiment("quits", advantage="quits"), "--out", desk / "quits")
    assert "(hookline-quits 1.1) could not be imported: it calls sys.exit" in one_sentence(said, 5)


def test_uninstalled_it_is_what_to_install_and_the_run_still_can_be_read(
    environment: Environment, experiment: Callable[..., Path], desk: Path
) -> None:
    """The last test of this file: it takes the plugin out of the shared environment."""
    path = experiment()
    if not (desk / "whole/run.json").exists():
        assert environment.hookline("run", path, "--out", desk / "whole").code == 0
    environment.pip("uninstall", "--yes", "hookline-loo")
    by_distribution = experiment("named", advantage="hookline-loo:loo")
    anew, named, resumed = environment.ask(
        [
            ["run", path, "--out", desk / "anew"],
            ["run", by_distribution, "--out", desk / "anew"],
            ["run", path, "--out", desk / "whole"],
        ]
    )
    assert re.search(
        r"no advantage 'loo' is installed → install the distribution that offers it, if there is one",
        one_sentence(anew, 5),
    )
    assert "→ install hookline-loo, if there is one" in one_sentence(named, 5)
    assert "→ pip install hookline-loo==0.1.0" in one_sentence(resumed, 5), "the run knows who offered it"
    assert not (desk / "anew").exists()

    read = (
        "import hookline, sys; run = hookline.Run.read(sys.argv[1]); print(len(run.rows()), run.about['plugins'][-1])"
    )
    said = environment.run("python", "-c", read, desk / "whole")
    assert said.code == 0, said.err
    assert said.out.startswith("6 ")


@pytest.mark.slow(120)
def test_a_clean_install_of_everything(tmp_path: Path, experiment: Callable[..., Path], desk: Path) -> None:
    """`pip install .` with all dependencies and nothing else: isolated build, compiled kernels, a run with the plugin."""
    venv.create(tmp_path / "venv", with_pip=True)
    made = Environment(tmp_path / "venv")
    source = copy_sources(tmp_path / "source") if (tmp_path / "source").mkdir() is None else None
    command = [
        made.python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        ROOT / "constraints.txt",
        source,
        ROOT / "examples/hookline-loo",
    ]
    done = subprocess.run([str(part) for part in command], env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where = made.run("python", "-c", "import hookline, torch; print(hookline.__file__, torch.__file__)")
    assert all(Path(path).is_relative_to(tmp_path) for path in where.out.split())
    said = made.hookline("run", experiment("clean"), "--out", desk / "clean")
    assert said.code == 0, said.err
    if sys.platform == "linux" and os.environ.get("CXX") != "none":
        assert "kernels: native" in said.out
    assert "loo (hookline-loo 0.1.0)" in said.out
    assert made.hookline("plugins", "list").code == 0
