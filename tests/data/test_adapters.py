"""Environments of other projects: Gymnasium's own package, and a server that speaks OpenEnv's protocol."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hookline import Environment, ExperimentError, ServiceError, Turn
from hookline_plugins.environments.gymnasium import Gymnasium
from hookline_plugins.environments.openenv import OpenEnv
from openenv_server import Sessions, sessions

needs_gymnasium = pytest.mark.skipif(importlib.util.find_spec("gymnasium") is None, reason="gymnasium is not installed")
needs_websockets = pytest.mark.skipif(
    importlib.util.find_spec("websockets") is None, reason="websockets is not installed"
)
ECHO = """
import gymnasium

class Echo(gymnasium.Env):
    action_space = gymnasium.spaces.Text(20)
    observation_space = gymnasium.spaces.Text(20)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 2
        return f"say {self.np_random.integers(100)} {(options or {}).get('prompt', '')}", {}

    def step(self, action):
        self.left -= 1
        return action.upper(), len(action) / 2, action == "end", self.left == 0, {}

def boxed():
    made = Echo()
    made.action_space = gymnasium.spaces.Box(0, 1)
    return made
"""


def made(kind: type[Environment], **options: Any) -> Environment:
    environment = kind(kind.Config(**options))
    environment.instance = kind.__name__.lower()
    environment.setup(SimpleNamespace())  # type: ignore[arg-type]
    return environment


def played(environment: Environment, replies: list[str], seed: int = 0, **record: Any) -> list[Turn]:
    async def play() -> list[Turn]:
        turns = [await environment.reset(record, torch.Generator().manual_seed(seed))]
        for reply in replies:
            turns.append(await environment.step(reply))
        closed = environment.close()
        if closed is not None:
            await closed
        return turns

    return asyncio.run(play())


@needs_gymnasium
def test_a_grid_of_gymnasium_is_drawn_and_walked_by_words() -> None:
    options = {"id": "FrozenLake-v1", "arguments": {"is_slippery": False}, "actions": ["left", "down", "right", "up"]}
    lake = made(Gymnasium, **options, show="render", begins="Walk to G.")
    turns = played(lake, ["down", "jump", " Down ", "right", "right", "down", "right"])
    assert turns[0].text.startswith("Walk to G.\n")
    assert "FHFH" in turns[0].text
    assert turns[2].text == "'jump' is not an action; the actions are: left, down, right, up"
    assert not turns[2].rewards
    assert dict(turns[-1].rewards) == {"environment": 1.0}
    assert (turns[-1].terminated, turns[-1].truncated) == (True, False)
    assert [turn.truncated for turn in played(made(Gymnasium, **options, mistakes=2), ["a", "down", "b"])] == [
        False,
        False,
        False,
        True,
    ]
    numbers = played(made(Gymnasium, id="FrozenLake-v1", arguments={"is_slippery": False}), ["1", "1"])
    assert [turn.text for turn in numbers] == ["0", "4", "8"]


@needs_gymnasium
def test_an_environment_of_a_file_is_seeded_gets_the_row_and_tells_a_cut_from_an_end(tmp_path: Path) -> None:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    echo = {"path": str(path), "make": "Echo"}
    once, again, other = (played(made(Gymnasium, **echo), ["hi", "you"], seed, prompt="now") for seed in (1, 1, 2))
    assert once == again
    assert once[0] != other[0]
    assert once[0].text.endswith(" now")
    assert once[1].text == "HI"
    assert (once[2].terminated, once[2].truncated, once[2].reward) == (False, True, 1.5)
    assert played(made(Gymnasium, **echo), ["end"])[1].terminated
    with pytest.raises(Exception, match="has the action space Box, which a reply cannot be"):
        played(made(Gymnasium, path=str(path), make="boxed"), ["0"])


@needs_gymnasium
def test_what_gymnasium_does_not_have_is_refused_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="gymnasium has no environment 'FrozenLaek-v1'"):
        made(Gymnasium, id="FrozenLaek-v1")
    with pytest.raises(ValueError, match="needs `id`, or `path` and `make`"):
        Gymnasium.Config()
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(ExperimentError, match="has no class or function 'Lake'"):
        made(Gymnasium, path=str(tmp_path / "none.py"), make="Lake")


# -- a server with sessions


@pytest.fixture
def server() -> Iterator[Sessions]:
    with sessions() as found:
        yield found


@needs_websockets
def test_a_session_of_openenv_is_an_episode_with_seed_and_row(server: Sessions) -> None:
    turns = played(
        made(OpenEnv, url=server.url, observation="text", columns=["level"]), ["go", "end"], seed=4, level=2, prompt="x"
    )
    assert [turn.text for turn in turns] == ["begin", "gogo", ""]
    assert [turn.reward for turn in turns] == [0.0, 1.0, 2.0]
    assert (turns[-1].terminated, turns[-1].truncated) == (True, False)
    first = server.asked[0]["data"]
    assert first == {
        "seed": int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(4))),
        "episode_id": first["episode_id"],
        "level": 2,
    }
    until = time.monotonic() + 20
    while server.asked[-1] != {"type": "close"} and time.monotonic() < until:
        time.sleep(0.01)
    assert server.asked[-1] == {"type": "close"}
    cut = played(made(OpenEnv, url=server.url), ["cut"])
    assert (cut[-1].terminated, cut[-1].truncated) == (False, True)
    assert json.loads(cut[0].text) == {"text": "begin", "truncated": False}


@needs_websockets
@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("refuse", "the server refuses a step: no such move"),
        ("crash", "the server's session ended"),
        ("end", "answers for episode another"),
    ],
)
def test_a_server_that_refuses_crashes_or_mixes_episodes_is_a_service_that_fails(
    server: Sessions, reply: str, why: str
) -> None:
    server.stray = reply == "end"
    with pytest.raises(ServiceError, match=why):
        played(made(OpenEnv, url=server.url, observation="text"), [reply])


@needs_websockets
def test_a_server_that_is_not_there_and_a_field_that_is_not_are_told(server: Sessions) -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        played(made(OpenEnv, url="ws://127.0.0.1:9"), [])
    with pytest.raises(ServiceError, match="has no field 'page'; it has: text, truncated"):
        played(made(OpenEnv, url=server.url, observation="page"), [])
    assert OpenEnv.seeded is False
