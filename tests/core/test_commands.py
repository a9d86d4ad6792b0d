"""Commands of others: options from a Config, one sentence for what is wrong, listed from metadata, loaded when called."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hookline.cli import main
from warm import Warm

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
        ({"field": "x: dict = {}"}, 5, "its option 'x' has the type dict, which a command line cannot give"),
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
            "its argument A takes several values and is not the last one",
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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise SystemExit(9)", "calls sys.exit(9)"),
        ("raise SystemExit('bye')", "calls sys.exit('bye')"),
        ("raise BaseException('hm')", "failed: BaseException: hm → fix "),
        ("return 300", "returned 300, not an exit code"),
        ("return -1", "returned -1, not an exit code"),
        ("return True", "returned True, not an exit code"),
    ],
)
def test_however_a_command_ends_it_is_its_exit_code_or_one_sentence(loose, capsys, body: str, words: str) -> None:
    assert main(["-p", loose(BASE.format(field="pass", more="", body=body), "odd"), "odd"]) == 5
    told = capsys.readouterr().err
    assert told.startswith("PluginError: command 'odd' (odd.py ")
    assert words in told
    assert "pip install" not in told, "a file of one's own is not on an index"


def test_an_interrupted_command_says_only_that(loose, capsys) -> None:
    source = BASE.format(field="pass", more="", body="raise KeyboardInterrupt")
    assert main(["-p", loose(source, "odd"), "odd"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("float('nan')", "gave nan under --json"),
        ("{'rows': [1.0, float('inf')]}", "gave inf at rows.1 under --json"),
        ("{'x': {1, 2}}", "gave {1, 2} at x under --json"),
        ("{(1, 2): 3}", "gave the key (1, 2) under --json"),
    ],
)
def test_what_json_does_not_have_is_named_and_nothing_is_printed(loose, capsys, value: str, words: str) -> None:
    source = BASE.format(field="pass", more="", body=f"print('hello')\n        out.value({value})\n        return 0")
    path = loose(source, "odd")
    assert main(["-p", path, "odd", "--json"]) == 5
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == "", "not even what the command prints itself"
    assert main(["-p", path, "odd"]) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            "def __init__(self, config):\n        super().__init__(config)\n        open('/etc/hostname')",
            "opens a file",
        ),
        ("run = hookline.Command.run", "has no method run"),
        ("async def run(self, out): return 0", "run is async"),
        ("def run(self): return 0", "its method `run` must take `out` as its only argument"),
    ],
)
def test_a_class_that_is_no_command_is_refused(loose, capsys, more: str, words: str) -> None:
    base = BASE if "__init__" in more else BASE[: BASE.index("    def run")]
    assert main(["-p", loose(base.format(field="pass", more=more, body="return 0"), "odd"), "odd"]) == 5
    assert words in capsys.readouterr().err


def test_the_base_classs_docstring_is_nobodys_help(loose, capsys) -> None:
    source = BASE.format(field="pass", more="", body="return 0").replace('    """Odd."""\n', "")
    path = loose(source, "odd")
    for arguments in (["-p", path, "odd", "--help"], ["plugins", "show", "odd", "-p", path]):
        assert main(arguments) == 0
        assert "verb of the command line" not in capsys.readouterr().out
    assert main(["plugins", "check", "odd", "-p", path]) == 5
    assert "without a docstring: the class" in capsys.readouterr().out


def test_usage_errors_name_the_command_whose_help_helps(loose, capsys) -> None:
    path = loose(GREET)
    assert main(["-p", path, "-p", f"{Path(path).parent}/../{Path(path).parent.name}/greet.py", "greet"]) == 2
    assert capsys.readouterr().err.endswith("→ hookline greet --help\n"), "one file named twice is one"
    assert main(["-p", path, "gret"]) == 2
    assert "there is no command 'gret'; the files given with -p offer command 'greet'" in capsys.readouterr().err


def test_a_loose_files_name_is_a_name(loose, capsys) -> None:
    path = loose(GREET.replace("    class Config", '    name = "Say hi!"\n\n    class Config'))
    assert main(["-p", path, "--help"]) == 0
    assert "a name has lower-case letters" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["eval", "run", "plugins"])
def test_no_command_is_begun_or_checked_under_a_name_it_cannot_have(loose, capsys, tmp_path: Path, name: str) -> None:
    assert main(["plugins", "new", name, "--kind", "command", "--dir", str(tmp_path)]) == 2
    assert f"'{name}' is a built-in command" in capsys.readouterr().err
    path = loose(GREET.replace("    class Config", f'    name = "{name}"\n\n    class Config'))
    assert main(["plugins", "check", f"greet.py:{name}", "-p", path]) == 5
    assert f"cannot be used: '{name}' is a built-in command" in capsys.readouterr().err


def test_under_json_there_is_one_value(loose, capsys) -> None:
    for calls in (0, 2):
        body = "\n        ".join([*["out.value(1)"] * calls, "return 0"])
        source = BASE.format(field="pass", more="", body=body)
        assert main(["-p", loose(source, f"odd{calls}"), "odd", "--json"]) == 5
        assert f"gave {calls} JSON values under --json instead of one" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["eval", "run", "plugins"])
def test_a_built_ins_name_cannot_be_taken(loose, capsys, name: str) -> None:
    path = loose(GREET.replace("    class Config", f'    name = "{name}"\n\n    class Config'))
    assert main(["-p", path, "--help"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert f"'{name}' is a built-in command, and a plugin cannot use a built-in name" in listed
    if name == "eval":
        assert main(["-p", path, "eval", "x"]) == 5
        assert "a plugin cannot use a built-in name; rename it" in capsys.readouterr().err


def test_p_before_a_verb_of_the_core_is_refused(loose, capsys) -> None:
    assert main(["-p", loose(GREET), "doctor"]) == 2
    assert "`doctor` is one of Hookline's own" in capsys.readouterr().err


# -- distributions


def install(folder: Path, name: str, offers: str, source: str) -> None:
    """As far as Python can tell: metadata beside a module."""
    info = folder / f"{name.replace('-', '_')}-0.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2\n")
    (info / "entry_points.txt").write_text(f"[hookline.command]\n{offers}\n")
    (folder / f"{name.replace('-', '_')}.py").write_text(source)


PROGRAM = "import sys; from hookline.cli import main; sys.exit(main(sys.argv[1:]))"


def seeing(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


@pytest.fixture
def hookline(installed: Path, warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`hookline("greet", "hi")` in a process that sees the distributions."""
    return lambda *arguments: warm.run("-c", PROGRAM, *arguments, env=seeing(installed))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder, "hookline-greet", "greet = hookline_greet:Greet", GREET)
    install(folder, "hookline-torn", "torn = hookline_torn:Torn", "import flux_capacitor\n")
    for who in ("one", "two"):
        install(folder, f"hookline-{who}", f"twice = hookline_{who}:Greet", GREET)
    install(folder, "hookline-thief", "export = hookline_thief:Export", "raise SystemExit(3)\n")
    return folder


def test_what_is_installed_is_listed_from_metadata_and_called(hookline) -> None:
    shown = hookline("--help")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"greet +offered by hookline-greet 0\.2", shown.stdout)
    assert re.search(r"torn +offered by hookline-torn 0\.2", shown.stdout), "listing imports nothing"
    assert "cannot be used, hookline-thief 0.2: 'export' is a built-in command" in " ".join(shown.stdout.split())
    assert hookline("greet", "hi").stdout.endswith("hi\n")


def test_a_command_that_does_not_import_is_told_with_its_distribution(hookline) -> None:
    for arguments in (["torn"], ["torn", "--help"]):
        said = hookline(*arguments)
        assert said.returncode == 5
        assert "command 'torn' (hookline-torn 0.2) could not be imported: ModuleNotFoundError" in said.stderr
        assert "flux_capacitor" in said.stderr


def test_a_name_that_two_distributions_offer_must_be_told_apart(hookline) -> None:
    said = hookline("twice", "hi")
    assert said.returncode == 5
    assert "say which: hookline hookline-one:twice or hookline hookline-two:twice" in said.stderr
    assert hookline("hookline-two:twice", "hi").stdout.endswith("hi\n")


def test_a_broken_command_does_not_touch_the_others(hookline) -> None:
    said = hookline("export", "nowhere", "out")
    assert said.returncode == 4, "the built-in one answers"
    assert "nowhere is not a run directory" in said.stderr


def test_help_answers_at_once(installed: Path) -> None:
    """Not much later than the libraries that it stands on, in processor time and in turns, since machines are busy."""

    def spent(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", code, "--help"]
        subprocess.run(command, env=seeing(installed), capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    took = [(spent(PROGRAM), spent("import pydantic, rich.console, typer")) for _ in range(3)]
    assert min(ours for ours, _ in took) < 2.5 * min(theirs for _, theirs in took), took


def test_figures_that_are_not_numbers_are_null_under_json() -> None:
    from hookline_plugins.commands.figures import plain

    found = {"rows": [{"value": math.nan, "low": -math.inf, "n": 3}], "ends": (1.0, math.inf), "name": "kl"}
    assert plain(found) == {"rows": [{"value": None, "low": None, "n": 3}], "ends": [1.0, None], "name": "kl"}


def test_the_package_is_a_program(warm: Warm, tmp_path: Path) -> None:
    done = warm.run("-m", "hookline", "plugins", "list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "grpo" in {offer["name"] for offer in json.loads(done.stdout)}
