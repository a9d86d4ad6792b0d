"""Shared fixtures: a tiny experiment that runs in a fraction of a second, loose plugin files, warm processes.

Tests run with one thread; those that are about threads set their number. Properties are tried on few examples, and on
many with the slow tests (`--hypothesis-profile thorough`). How they are dealt to workers and shards is in
rooms.py, what they may need from the machine in needs.py, processes in warm.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, for this process and those it starts

import pytest
import torch
from hypothesis import HealthCheck, settings

from needs import pytest_runtest_makereport  # noqa: F401
from rooms import pytest_xdist_make_scheduler, shard, sorted_by_cost  # noqa: F401
from warm import Child, Warm

torch.set_num_threads(1)
for name, examples in {"quick": 20, "thorough": 200}.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
settings.load_profile("quick")
ROOT = Path(__file__).resolve().parents[1]
TOKENS = '''
from hookline import Component, hookimpl

class Tokens(Component):
    """The sum of the token ids, in thousands: rewards that differ from the first step on, so that a run learns something."""

    name = "tokens"

    @hookimpl
    def hookline_reward(self, rollout):
        return (rollout.token_ids_BT * rollout.mask_BT).float().sum(1) / 1000
'''
IMPORTS = "import torch\nfrom hookline import Component, Config, Metric, Term, UpdateConfig, hookimpl\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", metavar="I/N", help="of the slow tests, only the I-th of N parts")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--hypothesis-profile", None) == "thorough":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.slow)
    items[:] = sorted_by_cost(items)
    if config.getoption("--shard"):
        items[:], others = shard(items, config.getoption("--shard"))
        config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Processes that begin with everything imported; see warm.py."""
    made = Warm()
    yield made
    made.close()


@pytest.fixture(scope="session")
def warm_workers(warm: Warm) -> Iterator[None]:
    """The workers of sweeps that this process makes begin warm."""
    from hookline.study import workers

    def begin(command: list[str], stdin: int, stdout: int, **kwargs: Any) -> Child:
        return warm.start(*command[1:], stderr=None, text=False, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": begin}))
        yield


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, the example plugins as loose files (loo.py, vanilla.py), and tokens.py, a reward that always differs."""
    folder = tmp_path_factory.mktemp("shelf")
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = [
        {"prompt": f"{a} {b}", "completion": f"{b} {a}.", "keywords": list(letters[i % 13 :: 2])}
        for i, (a, b) in enumerate(zip(letters, letters[7:] + letters))
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(ROOT / "examples/hookline-loo/src/hookline_loo/__init__.py", folder / "loo.py")
    shutil.copy(ROOT / "examples/vanilla.py", folder)
    (folder / "tokens.py").write_text(TOKENS)
    return folder


@pytest.fixture
def tiny(shelf: Path) -> Callable[..., dict[str, Any]]:
    """`tiny(reward="length", steps=2)`: one phase of reinforcement learning, its keys replaced; None removes one."""

    def make(**changes: Any) -> dict[str, Any]:
        phase: dict[str, Any] = {
            "name": "rl",
            "rollout": {
                "use": "generate", "prompts": str(shelf / "prompts.jsonl"), "rows": 4, "samples_per_prompt": 2,
                "max_new_tokens": 6,
            },
            "reward": "keyword-coverage",
            "advantage": "loo",
            "update": {"use": "vanilla", "lr": 1e-2},
            "steps": 2,
            **changes,
        }  # fmt: skip
        return {
            "name": "tiny",
            "seed": 1,
            "threads": 1,
            "tokenizer": {"train": "bpe", "on": str(shelf / "prompts.jsonl"), "vocabulary": 270},
            "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 32},
            "phases": [{key: value for key, value in phase.items() if value is not None}],
            "trackers": [],
            "plugins": [str(shelf / "loo.py"), str(shelf / "vanilla.py"), str(shelf / "tokens.py")],
        }

    return make


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., str]:
    """`plugin("class Mine(Component): …", "mine")`: a loose file, by path."""

    def write(source: str, name: str = "mine") -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(IMPORTS + textwrap.dedent(source))
        return str(path)

    return write
