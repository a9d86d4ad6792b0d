"""Wrong files, wrong functions and wrong results: one sentence each, with the user's own lines."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import ask, function

from hookline import DataError, ExperimentError, HooklineError, NumbersError, PluginError
from hookline.errors import frames_of
from refusing import refused

ROWS = [({"prompt": f"add {i} 1", "answer": str(i + 1)}, f"it is {i}") for i in range(5)]
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str, name: str = "rewards.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return make


# -- the file and the function


def test_a_missing_function(write: Write) -> None:
    path = write("def correct(completions): ...\ndef format_ok(completions): ...\n")
    err = refused(ExperimentError, lambda: function(path, "corect"))
    assert err.message == f"{path} has no function 'corect'; did you mean 'correct'?"
    assert refused(ExperimentError, lambda: function(path, "zzz")).message.endswith("it has correct, format_ok")


def test_a_class_that_needs_arguments(write: Write) -> None:
    path = write(
        """
        class Judge:
            def __init__(self, model): ...
            def __call__(self, completions, **kwargs): ...
        """
    )
    err = refused(ExperimentError, lambda: function(path, "Judge"))
    assert err.message == f"'Judge' of {path} is a class that needs the argument: 'model'"
    assert "my_judge = Judge(…)" in err.hint


def test_what_is_no_function(write: Write) -> None:
    path = write("import math\nweight = 3\nfrom hookline import Component\nclass Mine(Component): ...\n")
    assert refused(ExperimentError, lambda: function(path, "weight")).message.endswith("is an int, which cannot be called")
    assert refused(ExperimentError, lambda: function(path, "math")).message.endswith("is a module, which cannot be called")
    assert "is a component, not a function" in refused(ExperimentError, lambda: function(path, "Mine")).message


def test_an_import_error_shows_the_users_line(write: Write) -> None:
    path = write("import json\n\n\nimport not_there_at_all\n")
    err = refused(PluginError, lambda: function(path, "correct"))
    assert err.message == (
        f"{path} could not be imported: ModuleNotFoundError: No module named 'not_there_at_all' (rewards.py line 4)"
    )
    assert "import not_there_at_all" in frames_of(err)
    assert "hookline_plugins" not in frames_of(err)
    write("", "helpers.py")
    err = refused(PluginError, lambda: function(write("from helpers import x\n"), "correct"))
    assert "only rewards.py is copied into the run" in err.hint
    err = refused(PluginError, lambda: function(write("def correct(:\n"), "correct"))
    assert "SyntaxError: invalid syntax (line 1)" in err.message
    err = refused(PluginError, lambda: function(write("raise SystemExit\n"), "correct"))
    assert "it calls sys.exit (rewards.py line 1)" in err.message


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ("completions, solution_str", "has the parameters 'completions' (trl) and 'solution_str' (verl), which belong to different"),
        ("text, answer", "has no parameter that gets the answer; its parameters are text, answer"),
        ("", "has no parameter that gets the answer; its parameters are none"),
        ("completion, /", "takes 'completion' by position only"),
    ],
)
def test_signatures_that_fit_nothing(write: Write, parameters: str, sentence: str) -> None:
    err = refused(ExperimentError, lambda: function(write(f"def f({parameters}): ..."), "f"))
    assert err.message.startswith(f"rewards.py:f {sentence}")


def test_a_parameter_without_a_column(write: Write) -> None:
    path = write("def f(completion, solution, level=2): return level")
    err = refused(DataError, lambda: ask(path, "f", ROWS))
    assert err.message == (
        "row 0 (sample 100, 'add 0 1'): there is no column 'solution', which is a parameter of rewards.py:f; the row has prompt, answer"
    )
    assert ask(path, "f", ROWS[:1], columns={"solution": "answer"}).values == [2.0]
    assert ask(path, "f", ROWS[:1], arguments={"solution": "x", "level": 5}).values == [5.0]
    err = refused(DataError, lambda: ask(path, "f", ROWS, columns={"solution": "meta.answer"}))
    assert "there is no column 'meta.answer', which `columns` names for 'solution'" in err.message


# -- what it returns


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        ("[1.0] * 3", PluginError, "the batch of 5 rows that begins with row 0 (sample 100, 'add 0 1'): rewards.py:f returned 3 rewards"),
        ("[1, 2, 3, 'good', 5]", PluginError, "row 3 (sample 103, 'add 3 1'): rewards.py:f returned the text 'good'"),
        ("[0, 1, float('nan'), 1, 1]", NumbersError, "row 2 (sample 102, 'add 2 1'): rewards.py:f gave nan; the weights are as before"),
        ("[0, 1, 1, 1, float('inf')]", NumbersError, "row 4 (sample 104, 'add 4 1'): rewards.py:f gave inf; the weights"),
        ("1.0", PluginError, "returned a float instead of a list of 5 rewards"),
        ("None", PluginError, "returned nothing instead of a list of 5 rewards"),
        ("(x for x in completions)", PluginError, "returned a generator instead of a list of 5 rewards"),
        ("{'acc': 1}", PluginError, "returned a dict without `rewards` (it has acc)"),
        ("[[1, 2]] * 5", PluginError, "row 0 (sample 100, 'add 0 1'): rewards.py:f returned a list of 2"),
    ],
)  # fmt: skip
def test_results_that_are_no_rewards(write: Write, body: str, kind: type[HooklineError], sentence: str) -> None:
    err = refused(kind, lambda: ask(write(f"def f(completions): return {body}"), "f", ROWS))
    assert sentence in err.message


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ("[True, 2, 0.5, None, np.float64(3)]", [1.0, 2.0, 0.5, None, 3.0]),
        ("torch.arange(5)", [0.0, 1.0, 2.0, 3.0, 4.0]),
        ("np.ones((5, 1))", [1.0] * 5),
        ("[torch.tensor(1.5), torch.tensor([2.0]), (1, 'why'), {'score': 4}, {'reward': None}]", [1.5, 2.0, 1.0, 4.0, None]),
        ("{'rewards': [1, 2, 3, 4, 5], 'length': [1] * 5}", [1.0, 2.0, 3.0, 4.0, 5.0]),
    ],
)
@pytest.mark.parametrize("process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_results_that_are_rewards(write: Write, body: str, values: list[float | None], process: bool) -> None:
    path = write(f"import numpy as np, torch\ndef f(completions): return {body}")
    assert ask(path, "f", ROWS, process=process).values == values


# -- when it fails

BROKEN = """
def help(row):
    return row["score"]

def f(completion, record):
    return help({"score": 1} if record["answer"] != "4" else record)
"""


@pytest.mark.parametrize("process", [False, True])
def test_an_exception_names_row_and_line(write: Write, process: bool) -> None:
    err = refused(PluginError, lambda: ask(write(BROKEN), "f", ROWS, process=process))
    assert err.message == "row 3 (sample 103, 'add 3 1'): KeyError: 'score' (rewards.py line 3)"
    shown = frames_of(err)
    assert shown.count("File ") == 2, shown
    assert 'return row["score"]' in shown
    assert "return help(" in shown
    assert "hookline" not in shown.replace("hookline_function", "")


def test_async_exceptions_too(write: Write) -> None:
    path = write("import asyncio\nasync def f(completion):\n    await asyncio.sleep(0)\n    raise TimeoutError('mine')\n")
    err = refused(PluginError, lambda: ask(path, "f", ROWS, timeout=5))
    assert err.message == "row 0 (sample 100, 'add 0 1'): TimeoutError: mine (rewards.py line 4)"
    assert frames_of(err).count("File ") == 1
    err = refused(ExperimentError, lambda: ask(path, "f", ROWS, process=True))
    assert "is async, and process: true is for plain functions" in err.message


HANGS = """
import os, time

def f(completion, answer):
    if answer == "2":
        print("this must not be read as an answer")
        {}
    return int(answer)
"""


@pytest.mark.parametrize(
    ("what", "options", "why"),
    [
        ("time.sleep(60)", {"timeout": 0.05}, "no answer within 0.05 s"),
        ("time.sleep(60)", {"timeout": 0.3, "process": True}, "no answer within 0.3 s"),
        ("os._exit(3)", {"process": True}, "its process ended (exit code 3)"),
        ("os.kill(os.getpid(), 9)", {"process": True}, "its process ended (killed by signal 9)"),
    ],
)
def test_a_call_that_does_not_end(write: Write, what: str, options: dict[str, Any], why: str) -> None:
    found = ask(write(HANGS.format(what)), "f", ROWS[:3], **options)
    assert found.values == [1.0, None, 3.0]
    assert found.figures["function/f/missed"] == 1
    assert found.notices == [
        f"'f' did not judge row 1 (sample 101, 'add 1 1'): {why}; such rows are left out and counted"
    ]


def test_async_calls_have_a_timeout(write: Write) -> None:
    path = write("import asyncio\nasync def f(completion, answer):\n    await asyncio.sleep(60 if answer == '2' else 0)\n    return 1\n")
    assert ask(path, "f", ROWS[:3], timeout=0.05).values == [1.0, None, 1.0]


def test_threads_that_never_end_are_few(write: Write) -> None:
    path = write("import time\ndef f(completion): time.sleep(60)")
    err = refused(PluginError, lambda: ask(path, "f", ROWS, timeout=0.01))
    assert "4 of its calls still run after their timeout" in err.message
    assert "set process: true" in err.message


def test_a_memory_limit(write: Write) -> None:
    path = write("def f(completion): return len(bytearray(1 << 32))")
    err = refused(PluginError, lambda: ask(path, "f", ROWS, process=True, memory=2))
    assert "MemoryError (rewards.py line 1)" in err.message


def test_a_file_that_fails_in_its_process_only(write: Write) -> None:
    path = write("import multiprocessing, sys\nif '-c' in sys.argv: raise OSError('no GPU')\ndef f(completion): return 1")
    err = refused(PluginError, lambda: ask(path, "f", ROWS, process=True))
    assert "could not be imported: OSError: no GPU (rewards.py line 2)" in err.message


def test_random_functions_repeat_and_leave_generators_alone(write: Write) -> None:
    import random

    import torch

    text = """
    import random, numpy as np, torch
    def f(completion): return random.random() + np.random.rand() + float(torch.rand(()))
    """
    path = write(text)
    before = random.getstate(), torch.get_rng_state()
    one = ask(path, "f", ROWS).values
    assert len(set(one)) == len(ROWS)
    assert ask(path, "f", list(ROWS)).values == one
    assert ask(path, "f", ROWS, step=1).values != one
    assert ask(path, "f", ROWS, process=True).values == one
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
