"""An experiment as Python objects: rows, functions and classes are recorded, and the run goes on without this process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
import yaml

import hookline
from hookline import DataError, ExperimentError, use
from hookline.cli import main
from hookline.config import experiment as schema
from hookline.config import typed
from hookline.config.objects import plain
from hookline.storage.paths import beside
from hookline_plugins.algorithms.grpo import GRPO

ROOT = Path(__file__).resolve().parents[2]
ROWS = [{"prompt": "open", "answer": "1"}, {"prompt": "close", "answer": "2"}]
BONUS = 0.25


def length_of(text: str) -> int:
    return len(re.findall("[a-z]", text))


def outside(completions: list[str]) -> list[float]:
    return [BONUS * length_of(text) for text in completions]


def made_inside(bonus: Any) -> Callable[..., Any]:
    def inside(completions: list[str]) -> list[float]:
        return [bonus * length_of(text) for text in completions]

    return inside


def held(value: Any) -> str:
    return Path(beside(value)).read_text(encoding="utf-8")


def the_page(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL)[0]


@pytest.mark.slow(15)
def test_the_page_runs_and_another_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text(the_page("python"))
    again = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "script.py"], check=True, env=again, capture_output=True, timeout=120)
    assert len(list(Path("runs/letters/memory").iterdir())) == 2
    [code] = Path("runs/letters/functions").iterdir()
    assert code.read_text().count("def correct") == 1
    assert main(the_page("sh").split()[1:]) == 0  # the process that held the rows is gone
    assert "already complete" in capsys.readouterr().out
    assert hookline.reproduce("runs/letters")["equal"]
    assert "<table>" in hookline.Run.read("runs/letters")._repr_html_()


@pytest.mark.parametrize(
    "rows", [ROWS, tuple(ROWS), pandas.DataFrame(ROWS), pyarrow.Table.from_pylist(ROWS)], ids=["list", "tuple", "pandas", "arrow"]
)
def test_rows_of_every_kind_are_the_same_rows(rows: Any) -> None:
    found = plain({"data": {"train": rows}, "phases": [{"rollout": use("generate", prompts=rows)}]})
    name = found["phases"][0]["rollout"]["prompts"]
    assert found["data"]["train"] == name
    assert [json.loads(line) for line in held(name).splitlines()] == ROWS
    assert name == plain({"data": {"train": [*ROWS]}})["data"]["train"]
    assert name != plain({"data": {"train": ROWS[:1]}})["data"]["train"]


def test_lists_that_are_not_rows_stay_lists() -> None:
    mixture = {"data": {"mix": [{"path": "a.jsonl", "weight": 1.0}]}, "phases": [{"name": "a", "reward": [{"use": "length"}]}]}
    assert plain(mixture) == mixture


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": object()}], "row 1 of prompts cannot be written as JSON"),
        ([{"prompt": "a", "x": float("nan")}], "row 1 of prompts cannot be written as JSON"),
        (pandas.DataFrame({"prompt": []}), "the rows of prompts are empty"),
    ],
)
def test_rows_that_cannot_be_recorded(rows: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        plain({"rollout": {"use": "generate", "prompts": rows}})


def test_a_function_of_a_module_is_its_file() -> None:
    assert plain({"reward": [outside]})["reward"] == [
        {"use": "function", "name": "outside", "path": __file__, "function": "outside"}
    ]


def test_a_function_within_a_function_is_recorded_with_what_it_reads() -> None:
    [found] = plain({"reward": [use(made_inside(0.5), weight=2.0)]})["reward"]
    assert (found["name"], found["weight"]) == ("inside", 2.0)
    module: dict[str, Any] = {}
    exec(held(found["path"]), module)
    assert module["inside"](["ab", "abc1"]) == [1.0, 1.5]
    [other] = plain({"reward": [made_inside(0.75)]})["reward"]
    assert other["path"] != found["path"]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda completions: completions, "a lambda has no name"),
        (made_inside(object()), "inside reads the variable 'bonus', which is an object and cannot be recorded"),
        (GRPO.Config(lr=0.1), r"options of Clipped do not say which component.*hookline.use\(CLASS, Clipped.Config"),
        ("x".join, "cannot be recorded"),
    ],
    ids=["lambda", "object", "config", "method"],
)
def test_code_that_cannot_be_recorded_is_named(function: Any, said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        plain({"reward": [function]})


def test_a_class_of_ours_is_its_name_and_another_is_its_file(tiny: Any, tmp_path: Path) -> None:
    class Letters(hookline.Component):
        """The sum of the token ids."""

        @hookline.hookimpl
        def hookline_reward(self, rollout: Any) -> Any:
            return (rollout.token_ids_BT * rollout.mask_BT).float().sum(1) / 1000

    assert plain({"update": use(GRPO, GRPO.Config(lr=1e-3))})["update"] == {"use": "grpo", "lr": 1e-3}
    run = hookline.run(tiny(reward=[Letters], advantage="loo", steps=1), out=tmp_path / "run")
    assert "Letters" in [path.name.partition("-")[0] for path in (run.directory / "plugins").iterdir()]
    run = hookline.run(tiny(reward="letters", advantage="loo", steps=1), out=tmp_path / "named", plugins=[Letters])
    assert run.rows()


def test_a_run_with_another_function_is_not_resumed(tiny: Any, tmp_path: Path) -> None:
    hookline.run(tiny(reward=[made_inside(0.5)], advantage="loo", steps=1), out=tmp_path / "run")
    with pytest.raises(hookline.CheckpointError, match=r"reward.inside.options.path was .*inside-.*, is .*inside-"):
        hookline.run(tiny(reward=[made_inside(0.75)], advantage="loo", steps=1), out=tmp_path / "run")


@pytest.mark.parametrize("name", ["Experiment", "Phase", "Evaluation", "Model"])
def test_the_types_have_the_fields_of_the_schema(name: str) -> None:
    checked = getattr(schema, {"Model": "ModelSpec"}.get(name, name)).model_fields
    assert {field.alias or key for key, field in checked.items()} == set(getattr(typed, name).__annotations__)


def test_the_environment_for_conda_takes_our_own_versions() -> None:
    found = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert found[-1]["pip"] == ["--constraint constraints.txt", ".[data,report]"]
    project = (ROOT / "pyproject.toml").read_text()
    assert found[0] == "python" + re.findall('requires-python = "(.*)"', project)[0]


@pytest.mark.slow
def test_no_tensorflow_is_imported(tmp_path: Path) -> None:
    for name in ("tensorflow", "jax", "flax"):
        (tmp_path / f"{name}.py").write_text(f"import os; os.write(2, b'{name} was imported'); os._exit(9)")
    code = "import hookline\nfor name in hookline.__all__: getattr(hookline, name)\nfrom transformers import AutoModelForCausalLM"
    path = {"PYTHONPATH": ":".join([str(tmp_path), *sys.path]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
