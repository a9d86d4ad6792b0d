"""The life of a component: opened in setup, closed whatever happens; waiting on the run's loop; answers journaled once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline import CheckpointError, PluginError
from hookline.loop.api import open_run, plan
from hookline.models.role import Role
from hookline.registry import closing
from hookline.storage import folders, journal
from hookline.storage.journal import Journal
from hookline.testing import open_phase
from warm import Warm

Tiny = Callable[..., dict[str, Any]]
Write = Callable[..., str]

LIFE = """
    import os, time
    from pathlib import Path

    def note(text):
        with open(os.environ["LIFE"], "a") as file:
            file.write(text + "\\n")

    class Alive(Component):
        class Config(Config):
            says: str = ""
            fails: str = ""

        def __init__(self, config):
            super().__init__(config)
            self.step = 0

        def setup(self, ctx):
            note(f"open {self.config.says}")
            if self.config.fails == "setup":
                raise OSError("no such socket")

        def close(self):
            note(f"close {self.config.says}")
            if self.config.fails == "close":
                raise OSError("broken pipe")
            if self.config.fails == "hang":
                time.sleep(60)

        @hookimpl(wrapper=True)
        def hookline_update(self, ctx, batch):
            if self.config.fails == "step":
                raise ValueError("out of luck")
            return (yield)
"""
WATCH = """
    import os

    class Watch(Component):
        def close(self):
            with open(os.environ["LIFE"], "a") as file:
                file.write("close tracker\\n")
            raise RuntimeError("late")

        @hookimpl
        def hookline_run_finished(self, run, status):
            with open(os.environ["LIFE"], "a") as file:
                file.write(status + "\\n")
"""
JUDGE = """
    import os

    class Grader(Component):
        async def close(self):
            with open(os.environ["LIFE"], "a") as file:
                file.write("close judge\\n")

        @hookimpl
        def hookline_reward(self, rollout):
            return torch.zeros(len(rollout))
"""


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What components noted so far: `open NAME`, `close NAME`."""
    monkeypatch.setenv("LIFE", str(tmp_path / "life"))
    (tmp_path / "life").touch()
    return lambda: (tmp_path / "life").read_text().splitlines()


def alive(plugin: Write, *fails: str) -> tuple[str, list[dict[str, Any]]]:
    """Three wrappers a, b, c of which some fail: (their file, what a phase says under `wrap`)."""
    names = zip("abc", (*fails, "", "", ""))
    return plugin(LIFE, "alive"), [
        {"use": "alive", "name": name, "says": name, **({"fails": how} if how else {})} for name, how in names
    ]


def test_components_are_closed_in_reverse_order(
    life: Callable[[], list[str]], plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    path, wraps = alive(plugin)
    evaluate = [{"rows": 2, "prompts": tiny()["phases"][0]["rollout"]["prompts"], "reward": ["grader"]}]
    experiment = {**tiny(wrap=wraps, evaluate=evaluate), "trackers": ["watch"]}
    paths = [path, plugin(JUDGE, "grader"), plugin(WATCH, "watch")]
    run = hookline.run(experiment, plugins=paths, out=tmp_path / "run")
    assert life() == [
        *("open a", "open b", "open c"),
        *("close judge", "close c", "close b", "close a"),
        *("finished", "close tracker"),
    ]
    notice = run.notices[-1]
    assert "watch" in notice
    assert "failed to close: RuntimeError: late" in notice


@pytest.mark.parametrize("where", ["setup", "step"])
def test_a_failure_closes_what_was_opened_and_stays_the_error(
    life: Callable[[], list[str]],
    plugin: Write,
    tiny: Tiny,
    tmp_path: Path,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, wraps = alive(plugin, "close", where)
    sentence = {"setup": "in setup: OSError: no such socket", "step": "in hookline_update: ValueError: out of luck"}
    with pytest.raises(PluginError, match=sentence[where]):
        hookline.run(tiny(wrap=wraps), plugins=[path], out=tmp_path / "run")
    opened = ["a", "b"] if where == "setup" else ["a", "b", "c"]
    assert life() == [f"open {name}" for name in opened] + [f"close {name}" for name in reversed(opened)]
    assert capsys.readouterr().err.count("failed to close: OSError: broken pipe") == 1


def test_a_close_that_hangs_is_interrupted_and_named(
    life: Callable[[], list[str]],
    plugin: Write,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(closing, "SECONDS", 0.6)
    path, wraps = alive(plugin, "", "hang", "hang")
    with open_phase({**tiny(wrap=wraps)}, tmp_path / "run", plugins=[path]) as loop:
        loop.step()
        began = time.monotonic()
        loop.close()
        assert time.monotonic() - began < 0.7
        assert life()[-3:] == ["close c", "close b", "close a"], "the others are closed all the same"
        assert capsys.readouterr().err.count("was not closed: close() took longer than") == 2
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert life()[-3:] == ["close c", "close b", "close a"], "twice does no harm"
    assert len(life()) == 9


def test_a_run_that_is_asked_to_stop_closes(
    life: Callable[[], list[str]], plugin: Write, tiny: Tiny, tmp_path: Path
) -> None:
    path, wraps = alive(plugin)
    stop = """
        import os, signal
        class Stop(Component):
            @hookimpl(wrapper=True)
            def hookline_update(self, ctx, batch):
                os.kill(os.getpid(), signal.SIGTERM)
                return (yield)
    """
    with pytest.raises(hookline.HooklineError, match="stopped after step 1"):
        hookline.run(tiny(wrap=[*wraps, "stop"]), plugins=[path, plugin(stop, "stop")], out=tmp_path / "run")
    assert life()[-3:] == ["close c", "close b", "close a"]


# -- waiting


def test_wait_runs_on_one_loop_all_through_the_run(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(
        """
        import asyncio

        async def loop():
            return asyncio.get_running_loop()

        class Mine(Component):
            def setup(self, ctx):
                self.loop = ctx.wait(loop())

            def close(self):
                assert not self.loop.is_closed()

            @hookimpl
            async def hookline_reward(self, ctx, rollout):
                assert asyncio.get_running_loop() is self.loop
                return rollout.token_ids_BT.float().sum(1)

        class Around(Component):
            @hookimpl(wrapper=True)
            def hookline_score(self, ctx, rollout):
                assert ctx.wait(loop()) is ctx.wait(loop())
                return (yield)
        """
    )
    run = hookline.run(tiny(reward="mine", patience=9), plugins=[path], out=tmp_path / "run")
    assert not run.notices


def test_wait_inside_a_coroutine_is_refused(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin(
        """
        async def one():
            return 1.0

        class Mine(Component):
            @hookimpl
            async def hookline_reward(self, ctx, rollout):
                return torch.full((len(rollout),), ctx.wait(one()))
        """
    )
    with pytest.raises(PluginError, match=r"'mine' calls ctx.wait inside a coroutine → use await there"):
        hookline.run(tiny(reward="mine"), plugins=[path], out=tmp_path / "run")


# -- answers

ONCE = """
    import os
    from pathlib import Path

    def answer():
        count = Path(os.environ["LIFE"])
        count.write_text(count.read_text() + "asked\\n")
        worth = torch.frombuffer(bytearray(os.urandom(8)), dtype=torch.uint8).float()
        return {"worth": worth, "who": ("a", None, float("inf"), "\\ud83d")}

    async def late():
        return answer()

    class Mine(Component):
        @hookimpl
        def hookline_reward(self, ctx, rollout):
            got = ctx.once(("mood", 1), answer)
            got_late = ctx.wait(ctx.once("late", late))
            if os.environ.get("KILL") == str(ctx.step):
                os._exit(9)
            assert got["who"] == got_late["who"] == ["a", None, float("inf"), "\\ud83d"]
            return got["worth"] + got_late["worth"]
"""


def test_a_kill_between_an_answer_and_its_use_changes_nothing(
    life: Callable[[], list[str]], plugin: Write, tiny: Tiny, tmp_path: Path, warm: Warm
) -> None:
    """Answers are random, so only the journal can give the same ones again."""
    path, out = plugin(ONCE), tmp_path / "run"
    experiment = tiny(reward="mine", save={"every": 1})
    code = f"import json, hookline; hookline.run(json.loads({json.dumps(experiment)!r}), plugins=[{path!r}], out={str(out)!r})"
    child = warm.run("-c", code, env={**os.environ, "KILL": "1"})
    assert child.returncode == 9, child.stderr
    lines = (out / "journal.jsonl").read_text().splitlines()
    assert len(lines) == len(life()) == 4
    assert json.loads(lines[2])["key"] == ["rl", "", "reward/mine", 1, "once", "mood", 1]
    run = hookline.run(experiment, plugins=[path], out=out)
    assert len(life()) == 4, "nothing was asked again"
    kept = Journal(out / "journal.jsonl")
    for step, row in enumerate(run.rows()):
        worth = [
            kept.find(["rl", "", "reward/mine", step, "once", *key])[1]["worth"] for key in (("mood", 1), ("late",))
        ]
        assert row["metrics"]["reward"] == pytest.approx(float(sum(worth).mean()))


def test_what_another_process_journals_until_the_lock_is_taken_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Tiny
) -> None:
    out = tmp_path / "run"
    hookline.run(tiny(steps=1), out=out)
    take = folders.take_lock

    def late(folder: Path) -> object:
        Journal(out / "journal.jsonl").add(["theirs"], 1)
        return take(folder)

    monkeypatch.setattr("hookline.runs.run.take_lock", late)
    run = open_run(out, plan(tiny(steps=1)))
    assert run.journal.find(["theirs"]) == (True, 1)
    run.close()


def test_a_kill_between_tensors_and_their_line_leaves_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    child = os.fork()
    if child == 0:
        journal.append = lambda *args, **options: os._exit(9)  # type: ignore[assignment]
        Journal(path).add(["a"], torch.ones(3))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    again = Journal(path)
    assert again.find(["a"]) == (False, None)
    assert again.add(["a"], torch.zeros(3)).tolist() == [0, 0, 0]
    assert Journal(path).find(["a"])[1].tolist() == [0, 0, 0]


def test_the_first_answer_to_a_key_stays_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    kept = Journal(path)
    assert kept.add(["a", 1], {"x": torch.ones(2, dtype=torch.bfloat16)})["x"].dtype == torch.bfloat16
    assert kept.add(["a", 1], {"x": torch.zeros(2)})["x"].tolist() == [1, 1]
    assert len(path.read_text().splitlines()) == 1
    [file] = tmp_path.glob("journal/*/answer.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"journal.jsonl has a damaged answer: .*answer.safetensors does not match its hash"):
        Journal(path).find(["a", 1])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("ctx.once('x', object)", r"'mine' got an object from ctx.once, which cannot be journaled"),
        ("ctx.once('x', lambda: {'a': [1, {2}]})", r"got a set \(at 'a/1'\) from ctx.once, which cannot be journaled"),
        ("ctx.once('x', lambda: {1: 2})", r"got a dict whose keys are not all text from ctx.once"),
        ("ctx.once(('x', {1}), int)", r"passes ctx.once the key \('x', \{1\}\): Object of type set is not JSON"),
        ("ctx.once('x', lambda: late())", r"passes ctx.once a plain function that returns an awaitable"),
    ],
)
def test_what_cannot_be_journaled_is_one_sentence(
    plugin: Write, tiny: Tiny, tmp_path: Path, body: str, sentence: str
) -> None:
    path = plugin(
        f"""
        async def late():
            return 1

        class Mine(Component):
            @hookimpl
            def hookline_reward(self, ctx, rollout):
                {body}
                return torch.zeros(len(rollout))
        """
    )
    with pytest.raises(PluginError, match=sentence) as caught:
        hookline.run(tiny(reward="mine"), plugins=[path], out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    journaled = tmp_path / "run/journal.jsonl"
    assert not journaled.exists() or not journaled.read_text()


# -- folders are hashed once


def test_a_folder_is_hashed_once_per_process_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(
        folders, "file_hash", lambda path, plain=folders.file_hash: hashed.append(path.name) or plain(path)
    )
    with folders.write_aside(tmp_path / "kept", {"step": 1}) as aside:
        (aside / "a").write_bytes(b"abc")
    assert folders.verify(tmp_path / "kept")["step"] == 1
    assert hashed == ["a"], "hashed when it was written"
    folders._verified.clear()  # as in another process
    hashed.clear()
    assert folders.verify(tmp_path / "kept")["step"] == folders.verify(tmp_path / "kept")["step"] == 1
    assert hashed == ["a"]
    folders.verify(tmp_path / "kept")["step"] = 7
    assert folders.verify(tmp_path / "kept")["step"] == 1, "what is handed out is a copy"
    (tmp_path / "kept" / "a").write_bytes(b"abd")
    with pytest.raises(CheckpointError, match="does not match its hash"):
        folders.verify(tmp_path / "kept")


@pytest.mark.parametrize(("write", "steps"), [("parameter", 1), ("parameter.data", 3)])
def test_a_write_into_a_frozen_role_is_found_at_the_next_save_or_at_the_end(
    plugin: Write, tiny: Tiny, tmp_path: Path, write: str, steps: int
) -> None:
    """What torch counts as a write is found at the save; what goes past its count, at the end of the phase."""
    path = plugin(
        f"""
        class Mine(Component):
            def setup(self, ctx):
                ctx.role("still", frozen=True)

            @hookimpl(wrapper=True)
            def hookline_update(self, ctx, batch):
                if ctx.step == 0:
                    parameter = next(iter(ctx.role_named("still").parameters().values()))
                    with torch.no_grad():
                        {write}.add_(1.0)
                return (yield)
        """
    )
    with pytest.raises(PluginError, match="frozen role 'still' changed during phase 'rl'"):
        hookline.run(tiny(wrap="mine", steps=3, save={"every": 1}), plugins=[path], out=tmp_path / "run")
    assert len(hookline.Run.read(tmp_path / "run").rows()) == steps


def test_frozen_roles_are_hashed_at_the_start_and_the_end_alone(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    plain = Role.hash
    monkeypatch.setattr(Role, "hash", lambda role: hashed.append(role.name) or plain(role))
    kl = {"use": "kl-penalty", "target": 1.0}
    hookline.run(tiny(wrap=kl, steps=3, save={"every": 1}), out=tmp_path / "run")
    assert hashed.count("reference") == 2
