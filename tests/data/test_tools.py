"""Environments with tools: which tokens are the policy's, what each call is answered with, and what a call may not do."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_chat import GENERATES
from test_turns_played import experiment, written

from hookline import ExperimentError, PluginError, ServiceError
from hookline.testing import open_phase
from hookline.tokens.encode import read_turn
from hookline.tokens.tokenizer import Tokenizer
from hookline_plugins.environments.workers import Limits, Raised, Workers, shared

TOOLS = Path(__file__).with_name("tools.py")
HERMES = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t.function.name }} {% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    + GENERATES
)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


ADD = call("add", a=1, b=2)
RESPONSE = {
    "start_anchor": "<|im_start|>assistant\n",
    "defaults": {"role": "assistant"},
    "fields": {
        "content": {},
        "tool_calls": {
            "open": "[[", "close": "]]", "content": "json", "repeats": True,
            "transform": {"type": "function", "function": {"name": "{content.name}", "arguments": "{content.arguments}"}},
        },
    },
}  # fmt: skip
"""How a folder says that calls are JSON in [[ ]]."""


@pytest.fixture
def playing(shelf: Path, tmp_path: Path) -> Iterator[Any]:
    """`playing(replies, environment)`: (the loop of a phase, its first rollout)."""
    opened = []

    def play(replies: tuple[str, ...], **environment: Any) -> Any:
        given = {"use": "functions", "path": str(TOOLS), "tools": ["add", "search"], "score": "right", **environment}
        given = {name: value for name, value in given.items() if value is not None}
        made = experiment(shelf, replies, template=HERMES, rollout={"environment": given, "max_new_tokens": 128})
        large = tmp_path / "large"  # calls are long in so small a vocabulary
        if not large.exists():
            shutil.copytree(shelf / "qwen2", large)
            config = json.loads((large / "config.json").read_text())
            (large / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
        made["model"]["path"] = made["tokenizer"]["path"] = str(large)
        rows = shelf / "sums.jsonl"
        rows.write_text("".join(json.dumps({"prompt": "1 and 2", "sum": 3}) + "\n" for _ in range(2)))
        made["phases"][0]["rollout"]["prompts"] = str(rows)
        opened.append(open_phase(made, tmp_path / f"run{len(opened)}", plugins=made["plugins"]))
        loop = opened[-1].__enter__()
        return loop, loop.hooks.rollout(loop.ctx)

    yield play
    for one in reversed(opened):
        one.__exit__(None, None, None)


def asked(loop: Any, rollout: Any) -> list[str]:
    """What the tools said in row 0."""
    return re.findall(r"<\|im_start\|>tool\n(.*?)<\|im_end\|>", written(loop, rollout, 0), re.DOTALL)


def test_a_calculator_s_calls_are_the_policy_s_tokens_and_its_results_are_not_and_the_answer_is_paid(
    playing: Any,
) -> None:
    loop, rollout = playing((ADD, "3"))
    assert written(loop, rollout, 0) == (
        "<|im_start|>system\nadd search <|im_end|>\n<|im_start|>user\n1 and 2<|im_end|>\n<|im_start|>assistant\n"
        f"[{ADD}<|im_end|>]\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n[3<|im_end|>(1)]"
    )
    chosen = len(loop.ctx.tokenizer.chat.encode(f"{ADD}<|im_end|>")[0]) + len(
        loop.ctx.tokenizer.chat.encode("3<|im_end|>")[0]
    )
    assert rollout.mask_BT.sum(1).tolist() == [chosen, chosen]
    assert rollout.extra["recorded_BT"].sum() == 2


def test_a_search_that_finds_nothing_an_unknown_tool_and_a_call_in_pieces_are_told_to_the_policy(playing: Any) -> None:
    replies = (
        call("search", word="list"),
        call("search", word="moon"),
        call("fly", to="moon"),
        '<tool_call>{"name": </tool_call>',
        "4",
    )
    loop, rollout = playing(replies[:1] + replies[2:])
    found = asked(loop, rollout)
    assert found[0] == "a value by number"
    assert found[1] == "Error: no tool is called 'fly'; there are: add, search"
    assert found[2].startswith("Error: the call cannot be read")
    assert rollout.extra["recorded_BT"].sum() == 0
    loop, rollout = playing((replies[1], "3"))
    assert re.fullmatch(r"Error: KeyError: 'moon' \(line \d+\)", asked(loop, rollout)[0])


def test_several_calls_of_one_reply_are_answered_in_their_order(playing: Any) -> None:
    loop, rollout = playing((ADD + call("search", word="list"), "3"))
    assert asked(loop, rollout) == ["3", "a value by number"]


def test_a_tool_that_hangs_leaves_the_row_without_a_judgement(playing: Any) -> None:
    began = time.monotonic()
    loop, rollout = playing((call("hang", n=60),), tools=["hang"], seconds=1, score=None)
    assert time.monotonic() - began < 50
    assert rollout.extra["ok_B"].tolist() == [False, False]
    assert (
        "environment 'functions' did not answer: tool 'hang' did not answer within 1 s" in loop.session.run.notices[-1]
    )


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"tools": ["untold"]}, ExperimentError, "'untold' of .*tools.py cannot be a tool"),
        ({"tools": ["plus"]}, ExperimentError, "has no function 'plus'"),
        ({"score": "odd"}, PluginError, "returned 'well', not a finite number"),
        ({"tools": ["loud"], "score": "search"}, ExperimentError, None),
    ],
)
def test_files_of_tools_that_cannot_work_are_refused(
    playing: Any, options: dict[str, Any], error: type, why: str | None
) -> None:
    if why is None:
        loop, rollout = playing(("3",), **options)  # KeyError in a score: the row is not judged
        assert not rollout.extra["ok_B"].any()
        assert "KeyError: '3'" in loop.session.run.notices[-1]
        return
    with pytest.raises(error, match=why):
        playing(("3",), **options)


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = shared(str(TOOLS), Limits(20.0, 2.0, 50, False), 2)
    yield made
    made.close()


def test_what_a_tool_may_not_do_is_stopped_in_its_own_process(workers: Workers) -> None:
    assert workers.call("add", {"a": 1, "b": 2}, 1) == "3"
    assert workers.call("loud", {"n": 10_000_000}, 1) == "y" * 50 + " […9999950 more characters]"
    with pytest.raises(Raised, match="a tool cannot start a process"):
        workers.call("fork", {"n": 1}, 1)
    with pytest.raises(Raised, match="MemoryError"):
        workers.call("loud", {"n": 3 << 30}, 1)
    with pytest.raises(ServiceError, match=r"tool 'leave' ended its process \(exit code 3\)"):
        workers.call("leave", {"n": 3}, 1)
    with pytest.raises(Raised, match="missing 1 required positional"):
        workers.call("add", {"a": 1}, 1)
    assert workers.call("roll", {"sides": 1000}, 7) == workers.call("roll", {"sides": 1000}, 7)


def test_an_environment_of_trl_is_played_with_its_methods_as_tools(playing: Any) -> None:
    replies = (call("guess", number=1), call("hint", after=1), call("guess", number=3), "done")
    trl = {"use": "trl", "make": "Game", "tools": None, "score": None}
    loop, rollout = playing(replies, **trl)
    assert asked(loop, rollout) == ["no", "higher", "yes"]
    assert "system\nguess hint <|im_end|>\n<|im_start|>user\n1 and 2 now<|im_end|>" in written(loop, rollout, 0)
    assert written(loop, rollout, 0).endswith("[done<|im_end|>(1)]")
    with pytest.raises(ExperimentError, match=r"'Idle' of .* has no method `reset`"):
        playing(replies, **{**trl, "make": "Idle"})
    with pytest.raises(ExperimentError, match="has no class or function 'Gone'"):
        playing(replies, **{**trl, "make": "Gone"})


# -- what a reply calls


def test_calls_and_thoughts_are_read_from_a_reply(shelf: Path) -> None:
    plain = Tokenizer.load(shelf / "qwen2", {"chat_template": HERMES})
    message, unread = read_turn(plain, f"<think>hm</think>so {ADD}")
    assert (message["content"], unread) == ("<think>hm</think>so", [])  # the template reads no reasoning_content
    content_alone = Tokenizer.load(shelf / "qwen2")  # whose template reads neither
    assert read_turn(content_alone, f"<think>hm</think>so {ADD}")[0]["content"] == f"<think>hm</think>so {ADD}"
    assert message["reasoning_content"] == "hm"
    assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1, "b": 2}}
    for broken in (
        "<tool_call>{</tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
    ):
        message, unread = read_turn(plain, broken)
        assert (message["content"], unread) == (broken, [broken])
        assert "tool_calls" not in message
    assert read_turn(plain, "no call") == ({"role": "assistant", "content": "no call"}, [])


def test_a_folder_that_says_how_its_replies_are_read_decides(shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(shelf / "qwen2", folder)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about["response_template"] = RESPONSE
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    made = Tokenizer.load(folder, {"chat_template": HERMES})
    assert made.chat is not None
    assert made.chat.replies == RESPONSE
    number = {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    }
    message, unread = read_turn(made, 'so [[{"name": "add", "arguments": {"a": "1"}}]]', tools=[number])
    assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert (message["content"], unread) == ("so", [])
    broken = 'so [[{"name": ]]'
    assert read_turn(made, broken, tools=[number]) == ({"role": "assistant", "content": broken}, [broken])
