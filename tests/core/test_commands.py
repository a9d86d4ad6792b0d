"""Commands of others: options from a Config, one sentence for what is wrong, listed from metadata, loaded when called."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hookline.cli import main

GREET = '''
from pathlib import Path
from typing import Annotated, Literal

import hookline
from pydantic import Field


class Greet(hookline.Command):
    """Greet people.

    In a second paragraph, at length.
    """

    class Config(hookline.Config):
        greeting: Annotated[str, hookline.Argument("WORD")]
        """What is said."""
        names: Annotated[tuple[str, ...], hookline.Argument("NAME…")] = ("world",)
        """Who is greeted."""
        times: int = Field(1, ge=1, le=3)
        """How often."""
        loud_voice: bool = False
        """In capitals."""
        bow: bool = True
        """Bow first."""
        tone: Literal["warm", "cold"] = "warm"
        """How it sounds."""
        also: list[str] = []
        """More words."""
        pause: float | None = None
        """Seconds between."""
        log: Path | None = None
        """A file."""

    def run(self, out):
        c = self.config
        out.value({**c.model_dump(mode="json"), "json": out.json})
        out.table([{"who": name, "times": c.times, "pause": c.pause} for name in c.names])
        out.text(c.greeting.upper() if c.loud_voice else c.greeting)
        return 0 if c.tone == "warm" else 4
'''


@pytest.fixture
def loose(tmp_path: Path) -> Callable[[str], str]:
    def write(source: str, name: str = "greet") -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return str(path)

    return write


def test_a_config_becomes_arguments_and_options(loose, capsys) -> None:
    path = loose(GREET)
    options = "--times 2 --loud-voice --no-bow --also a --also b --pause 0.5 --log x.txt".split()
    assert main(["-p", path, "greet", "hi", "ann", "bob", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "greeting": "hi", "names": ["ann", "bob"], "times": 2, "loud_voice": True, "bow": False, "tone": "warm",
        "also": ["a", "b"], "pause": 0.5, "log": "x.txt", "json": True,
    }  # fmt: skip
    assert main(["-p", path, "greet", "hi", "--tone", "cold"]) == 4, "the exit code is the command's"
    assert capsys.readouterr().out.splitlines() == ["who     times   pause", "world       1", "hi"]


def test_help_is_the_docstrings(loose, capsys) -> None:
    assert main(["-p", loose(GREET), "greet", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "{WORD} [NAME…]", "Greet people.", "In a second paragraph", "What is said. [required]", "--loud-voice In capitals.",
        "--bow / --no-bow Bow first.", "--tone <warm|cold>", "[default: warm]", "[>=1, <=3]", "--also", "More words.",
    ):  # fmt: skip
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--times", "9"], "--times is '9'; it must be at most 3 → hookline greet --help"),
        (["--times", "two"], "--times must be a whole number, not 'two' → hookline greet --help"),
        (["--pause", "nan"], "--pause is 'nan'; it must be finite → hookline greet --help"),
        (["--tone", "hot"], "--tone is 'hot' → choose warm or cold"),
    ],
)
def test_a_wrong_option_is_one_sentence(loose, capsys, arguments: list[str], sentence: str) -> None:
    assert main(["-p", loose(GREET), "greet", "hi", *arguments]) == 2
    assert capsys.readouterr().err == f"ExperimentError: {sentence}\n"


def test_all_wrong_options_are_told_at_once(loose, capsys) -> None:
    assert main(["-p", loose(GREET), "greet", "hi", "--times", "0", "--tone", "hot"]) == 2
    first, *problems = capsys.readouterr().err.splitlines()
    assert first == "ExperimentError: 2 problems on the command line of hookline greet"
    assert [problem.split()[0] for problem in problems] == ["--times", "--tone"]


def test_unknown_options_and_missing_arguments_are_usage_errors(loose, capsys) -> None:
    for arguments in ([], ["hi", "--tims", "2"]):
        assert main(["-p", loose(GREET), "greet", *arguments]) == 2
        assert capsys.readouterr().err.startswith("UsageError: ")


BASE = '''
import hookline
from pydantic import Field
from typing import Annotated


class Odd(hookline.Command):
    """Odd."""

    name = "odd"

    class Config(hookline.Config):
        {field}

    {more}

    def run(self, out):
        {body}
'''


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ({"field": "x: dict = {}"}, 5, "its option 'x' is of type <class 'dict'>, which a command line cannot give"),
        ({"field": "help: str = ''"}, 5, "its option --help is reserved: Hookline adds it itself"),
        (
            {"field": "j: str = Field('', alias='json')"},
            5,
            "its option --json is reserved: Hookline adds it itself",
        ),
        (
            {
                "field": "a: Annotated[tuple[str, ...], hookline.Argument()] = ()\n"
                "        b: Annotated[str, hookline.Argument()]"
            },
            5,
            "A is not its last argument",
        ),
        ({"body": "pass"}, 5, "returned None, not an exit code"),
        ({"body": "1 / 0"}, 5, "failed: ZeroDivisionError"),
        ({"body": "raise hookline.DataError('no rows', 'add some')"}, 3, "DataError: no rows → add some"),
    ],
)
def test_a_broken_command_is_one_sentence_with_its_origin(loose, capsys, parts, code: int, words: str) -> None:
    path = loose(BASE.format(**({"field": "pass", "more": "", "body": "return 0"} | parts)), "odd")
    assert main(["-p", path, "odd"]) == code
    told = capsys.readouterr().err
    assert words in told
    assert code != 5 or "odd.py" in told


def test_under_json_there_is_one_value(loose, capsys) -> None:
    for calls in (0, 2):
        body = "\n        ".join([*["out.value(1)"] * calls, "return 0"])
        source = BASE.format(field="pass", more="", body=body)
        assert main(["-p", loose(source, f"odd{calls}"), "odd", "--json"]) == 5
        assert f"gave {calls} JSON values under --json, not one" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["eval", "run", "plugins"])
def test_a_built_ins_name_cannot_be_taken(loose, capsys, name: str) -> None:
    path = loose(GREET.replace("    class Config", f'    name = "{name}"\n\n    class Config'))
    assert main(["-p", path, "--help"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert f"'{name}' is a built-in command, and a built-in name cannot be taken" in listed
    if name == "eval":
        assert main(["-p", path, "eval", "x"]) == 5
        assert "a built-in name cannot be taken; rename it" in capsys.readouterr().err


def test_p_before_a_verb_of_the_core_is_refused(loose, capsys) -> None:
    assert main(["-p", loose(GREET), "doctor"]) == 2
    assert "`doctor` is Hookline's own" in capsys.readouterr().err


# -- distributions


def install(folder: Path, name: str, offers: str, source: str) -> None:
    """As far as Python can tell: metadata beside a module."""
    info = folder / f"{name.replace('-', '_')}-0.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2\n")
    (info / "entry_points.txt").write_text(f"[hookline.command]\n{offers}\n")
    (folder / f"{name.replace('-', '_')}.py").write_text(source)


def hookline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from hookline.cli import main; sys.exit(main(sys.argv[1:]))"
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder, "hookline-greet", "greet = hookline_greet:Greet", GREET)
    install(folder, "hookline-torn", "torn = hookline_torn:Torn", "import flux_capacitor\n")
    for who in ("one", "two"):
        install(folder, f"hookline-{who}", f"twice = hookline_{who}:Greet", GREET)
    install(folder, "hookline-thief", "export = hookline_thief:Export", "raise SystemExit(3)\n")
    return folder


def test_what_is_installed_is_listed_from_metadata_and_called(installed: Path) -> None:
    shown = hookline(installed, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "greet    offered by hookline-greet 0.2" in shown.stdout
    assert "torn     offered by hookline-torn 0.2" in shown.stdout, "listing imports nothing"
    assert "cannot be used, hookline-thief 0.2: 'export' is a built-in command" in shown.stdout
    assert hookline(installed, "greet", "hi").stdout.endswith("hi\n")


def test_a_command_that_does_not_import_is_told_with_its_distribution(installed: Path) -> None:
    for arguments in (["torn"], ["torn", "--help"]):
        said = hookline(installed, *arguments)
        assert said.returncode == 5
        assert "command 'torn' (hookline-torn 0.2) could not be imported: ModuleNotFoundError" in said.stderr
        assert "flux_capacitor" in said.stderr


def test_a_name_that_two_distributions_offer_must_be_told_apart(installed: Path) -> None:
    said = hookline(installed, "twice", "hi")
    assert said.returncode == 5
    assert "say which: hookline hookline-one:twice or hookline hookline-two:twice" in said.stderr
    assert hookline(installed, "hookline-two:twice", "hi").stdout.endswith("hi\n")


def test_a_broken_command_does_not_touch_the_others(installed: Path) -> None:
    said = hookline(installed, "export", "nowhere", "out")
    assert said.returncode == 4, "the built-in one answers"
    assert "nowhere is not a run directory" in said.stderr


def test_help_answers_at_once(installed: Path) -> None:
    """In processor time, which other processes on the machine do not lengthen."""

    def spent() -> float:
        of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return of_children.ru_utime + of_children.ru_stime

    took = []
    for _ in range(3):
        before = spent()
        assert hookline(installed, "--help").returncode == 0
        took.append(spent() - before)
    assert min(took) < 0.3
