"""`hookline plugins new`: what it writes works at once, for every kind; what it refuses, it refuses in one sentence."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from hookline.cli import main
from hookline.cli.kit import ASKED, in_experiment
from hookline.errors import ExperimentError
from warm import Warm

NAMES = {kind: f"my-{kind}" for kind in ASKED}
Ask = Callable[..., subprocess.CompletedProcess[str]]
DRIVER = """
import json, sys
from hookline.cli import main
for line in sys.stdin:
    print("\\n== ", main(json.loads(line)), flush=True)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One new distribution of every kind, installed as far as Python can tell: its metadata lies beside its package."""
    folder = tmp_path_factory.mktemp("desk")
    for kind, name in NAMES.items():
        assert main(["plugins", "new", name, "--kind", kind, "--dir", str(folder)]) == 0
        install(folder / f"hookline-{name}")
    return folder


def install(distribution: Path) -> None:
    about = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    info = distribution / "src" / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in offered.items())
        for group, offered in about["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))


@pytest.fixture
def ask(desk: Path, warm: Warm) -> Ask:
    """A program that sees all of them installed."""
    paths = [*map(str, sorted(desk.glob("*/src"))), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sources = os.pathsep.join(filter(None, paths))
    variables = {**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"}
    return lambda *command, lines="": warm.run(*command, cwd=desk, env=variables, input=lines)


def test_a_kinds_own_name_always_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", "mine", "--kind", "update", "--dir", str(tmp_path)]) == 0
    assert "offers the update 'mine'" in capsys.readouterr().out


def test_every_experiment_runs(desk: Path, ask: Ask) -> None:
    tried = [name for kind, name in NAMES.items() if in_experiment(kind)]
    commands = [["run", f"hookline-{n}/try-{n}.yaml", "--out", f"run-{n}"] for n in tried]
    done = ask("-c", DRIVER, lines="".join(json.dumps(command) + "\n" for command in commands))
    assert re.findall(r"==  (\d+)", done.stdout) == ["0"] * len(tried), done.stdout + done.stderr
    for name in tried:
        [rows] = [[json.loads(line) for line in (desk / f"run-{name}/metrics.jsonl").read_text().splitlines()]]
        assert len(rows) == 10, name
        learned = [row["metrics"].get("grad_norm") for row in rows]
        assert name == NAMES["feedback"] or all(norm and norm > 1e-3 for norm in learned), "answers to a prompt differ"
        plugins = json.loads((desk / f"run-{name}/run.json").read_text())["plugins"]
        data = json.loads((desk / f"run-{name}/run.json").read_text())["data"]
        assert f"hookline-{name}" in {p["distribution"] for p in plugins} or f"task:{name}" in data


@pytest.mark.parametrize(
    ("some", "tests"), [("hookline-my-advantage", 6), pytest.param("*", 60, marks=pytest.mark.slow(60))]
)
def test_every_test_passes_at_once(desk: Path, ask: Ask, some: str, tests: int) -> None:
    done = ask("-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, sorted(desk.glob(f"{some}/tests"))))
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= tests, done.stdout  # type: ignore[index]


@pytest.mark.parametrize("kind", ASKED)
def test_what_is_written(desk: Path, kind: str) -> None:
    folder = desk / f"hookline-my-{kind}"
    component = folder / f"src/hookline_my_{kind}/__init__.py"
    [cls] = [node for node in ast.parse(component.read_text()).body if isinstance(node, ast.ClassDef)]
    assert cls.end_lineno is not None
    most = 54 if kind == "store" else 40  # a store has eleven methods
    assert cls.end_lineno - cls.lineno < most, "a component of at most 40 lines"
    test = (folder / f"tests/test_hookline_my_{kind}.py").read_text()
    assert len([line for line in test.splitlines() if line.strip()]) == 3
    commands = re.findall(r"^    (\w.*)$", (folder / "README.md").read_text(), re.MULTILINE)
    tried = f"hookline run try-my-{kind}.yaml" if in_experiment(kind) else f"hookline plugins check my-{kind}"
    assert commands == ["pip install -e .", tried, "pytest"]
    assert "NAME" not in component.read_text().replace("builtin:NAME", "")
    assert not re.search(r"\bExample\b", component.read_text())


def test_what_is_written_is_in_good_style(desk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,I", *desk.glob("*/src")],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("My-Plugin", "reward", "'My-Plugin' is not a valid plugin name"),
        ("7up", "reward", "'7up' is not a valid plugin name"),
        ("a_b", "reward", "'a_b' is not a valid plugin name"),
        ("../up", "reward", "'../up' is not a valid plugin name"),
        ("", "reward", "'' is not a valid plugin name"),
        ("x" * 41, "reward", "is not a valid plugin name"),
        ("mine", "rewards", "there is no kind 'rewards'; did you mean 'reward'?"),
        ("ppo", "algorithm", "'ppo' is a built-in update, and a plugin cannot use a built-in name"),
        ("plugins", "reward", "the package hookline_plugins is already installed"),
        ("there", "reward", "already exists"),
    ],
)
def test_what_is_refused(
    name: str, kind: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hookline-there").mkdir()
    assert main(["plugins", "new", "--kind", kind, "--dir", str(tmp_path), "--", name]) == ExperimentError.exit_code
    said = capsys.readouterr().err
    assert sentence in said
    assert re.fullmatch(r"ExperimentError: .+ → .+\n", said), "one sentence, with a hint"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hookline-there"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["plugins", "new", "mine", "--dir", str(tmp_path / "file")]) == ExperimentError.exit_code
    assert "cannot be written" in capsys.readouterr().err


Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    def run(*arguments: str) -> tuple[int, str]:
        code = main(["plugins", "check", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


LOOSE = """
from hookline import Component, hookimpl

class Loose(Component):
    '''Half of what an answer earned.'''
    @hookimpl
    def hookline_advantage(self, scored):
        return scored.advantaged(scored.reward_B / 2{bug})
"""


def test_check_tells_by_its_exit_code(check: Check, tmp_path: Path) -> None:
    sound, broken = tmp_path / "sound.py", tmp_path / "broken.py"
    sound.write_text(LOOSE.format(bug=""))
    broken.write_text(LOOSE.format(bug=" / scored.mask_BT.shape[1]"))
    code, said = check("sound", "-p", str(sound))
    assert code == 0, said
    assert "✓ padding" in said
    assert "0 broken" in said
    code, said = check("broken", "-p", str(broken), "--json")
    assert code == 5
    [report] = json.loads(said)
    assert (report["kind"], report["name"], report["passed"]) == ("advantage", "broken", False)
    assert [law["law"] for law in report["laws"] if law["outcome"] == "fail"] == ["padding"]
    assert all(law["meaning"] for law in report["laws"])


def test_check_refuses_in_one_sentence(check: Check) -> None:
    for arguments, code, sentence in (
        (["lenght"], 2, "no plugin 'lenght' is installed; did you mean 'length'?"),
        (["length", "per"], 2, "'per' is not an option"),
        (["length", "perr=2"], 2, "'length' has no option 'perr'; did you mean 'per'?"),
        (["gpt2"], 2, "the suite has no laws for a model"),
    ):
        got, said = check(*arguments)
        assert got == code, said
        assert sentence in said
        assert "Traceback" not in said


def test_options_are_passed_on(check: Check) -> None:
    code, said = check("length", "per=2.5", "--json")
    assert code == 0
    assert json.loads(said)[0]["options"] == {"per": 2.5}
