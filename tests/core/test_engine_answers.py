"""What an engine says is checked when it comes, and what goes wrong in it is said to be its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline import HooklineError, PluginError
from hookline.inference import completions, drawing
from hookline.loop.api import plan
from hookline.world import waiting

Tiny = Callable[..., dict[str, Any]]
Write = Callable[..., str]

BROKEN = """
    import asyncio
    from hookline import Completion, Engine, KeptIds, ServiceError

    class Broken(Engine):
        gives = {"kept-ids"}

        class Config(Config):
            how: str = "pass"

        def setup(self, ctx):
            self.version = 0

        def sync(self, role, version):
            self.version = version
            if self.config.how == "sync":
                raise OSError("disk full")

        async def draw(self, request):
            T = request.max_new_tokens
            ids = torch.tensor([5 + request.sample % 3] * (T - 1) + [request.eos])
            logprobs, versions, reason = torch.full((T,), -1.0), torch.full((T,), self.version), "stop"
            kept = KeptIds(ids.clone(), torch.arange(T + 1)) if request.sampling.truncated else None
            scope = {**globals(), **locals()}
            exec(self.config.how if self.config.how != "sync" else "pass", scope)
            if "answer" in scope:
                return scope["answer"]
            if "late" in scope:
                await asyncio.sleep(scope["late"])
            ids, logprobs, versions, reason, kept = (scope[n] for n in ("ids", "logprobs", "versions", "reason", "kept"))
            return Completion(token_ids=ids, finish_reason=reason, logprobs=logprobs, versions=versions, kept_ids=kept)
"""


@pytest.fixture
def draws(plugin: Write, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., hookline.Run]:
    """Run two steps with an engine that does something to a right answer before it gives it.

    Its log-probs are of the right form and made up, so the comparison with the role's own is off.
    """
    monkeypatch.setattr(drawing, "EXACT", float("inf"))

    def run(how: str = "pass", **rollout: Any) -> hookline.Run:
        described = tiny(engine={"use": "broken", "how": how}, reward="tokens")
        described["phases"][0]["rollout"] |= rollout
        described["phases"][0]["patience"] = 9
        return hookline.run(described, plugins=[plugin(BROKEN, "broken")], out=tmp_path / "run")

    return run


def test_right_answers_are_taken(draws: Callable[..., hookline.Run]) -> None:
    assert len(draws().rows()) == 2
    assert completions.ROUNDING < 0.01


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("ids[0] = 10**6", "returned the token id 1000000 for token 1 of an answer → ids go from 0"),
        ("ids[0] = -3", "returned the token id -3 for token 1"),
        ("ids = ids.float()", r"returned token_ids of \[6\], torch.float32, on cpu → return a tensor \[T\], torch.int64"),
        ("ids = ids.int()", r"returned token_ids of \[6\], torch.int32"),
        ("ids = ids[None]", r"returned token_ids of \[1, 6\]"),
        ("ids = ids.tolist()", "returned a list as token_ids"),
        ("ids = ids[:0]", "returned an answer without a token"),
        ("ids = ids.repeat(2)", "returned 12 tokens, but at most 6"),
        ("logprobs[1] = float('nan')", "returned the log-prob nan for token 2"),
        ("logprobs[1] = -float('inf')", "returned the log-prob -inf for token 2"),
        ("logprobs[1] = 0.01", "returned the log-prob 0.01 for token 2"),
        ("logprobs = logprobs.double()", r"returned logprobs of \[6\], torch.float64"),
        ("logprobs = logprobs.requires_grad_()", "returned logprobs that carry a gradient"),
        ("logprobs = logprobs[:-1]", "returned 5 logprobs for 6 tokens"),
        ("versions = versions[:-1]", "returned 5 versions for 6 tokens"),
        (
            "versions = versions - 5",
            "returned the version -5.* set versions to the version passed to sync.., here at most 0",
        ),
        ("versions = versions.float()", r"returned versions of \[6\], torch.float32"),
        ("versions = None", "returned a NoneType as versions"),
        ("reason = 'bored'", "returned the finish_reason 'bored' → set it to 'stop' or 'length'"),
        ("reason = None", "returned the finish_reason None"),
        ("ids[-1] = 7", r"returned an answer with finish_reason 'stop', but its ending token \d+ is not in it"),
        (
            "ids[1] = request.eos",
            r"returned an answer with finish_reason 'stop', but its ending token \d+ is token 2 of 6",
        ),
        ("answer = None", "returned a NoneType, not a Completion"),
        ("answer = (ids, logprobs)", "returned a tuple, not a Completion"),
    ],
)
def test_a_wrong_answer_is_one_sentence_that_names_the_engine(
    draws: Callable[..., hookline.Run], how: str, sentence: str
) -> None:
    with pytest.raises(PluginError, match=rf"^engine 'broken' \(broken.py \w+\) {sentence}"):
        draws(how)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("kept = None", "did not return the ids that top-k/top-p kept for each token"),
        ("kept = 'x'", "returned a str as kept_ids"),
        ("kept = KeptIds(kept.ids, kept.offsets[:-1])", "returned kept_ids whose offsets do not cover 6 tokens"),
        ("kept = KeptIds(kept.ids + 1, kept.offsets)", "its kept_ids do not contain it"),
        ("kept = KeptIds(kept.ids - 900, kept.offsets)", "or ids outside the vocabulary"),
    ],
)
def test_kept_ids_cover_each_token(draws: Callable[..., hookline.Run], how: str, sentence: str) -> None:
    with pytest.raises(PluginError, match=rf"^engine 'broken' .*{sentence}"):
        draws(how, top_k=3)


@pytest.mark.parametrize(
    ("how", "kind", "sentence"),
    [
        ("raise RuntimeError('no power')", PluginError, "failed in draw: RuntimeError: no power"),
        ("raise SystemExit('bye')", PluginError, "failed in draw: SystemExit: bye"),
        ("raise asyncio.CancelledError", PluginError, "failed in draw: CancelledError"),
        ("raise ServiceError('it is down', 'start it')", hookline.ServiceError, "in draw: it is down → start it"),
        ("sync", PluginError, "failed in sync: OSError: disk full"),
    ],
)
def test_what_an_engine_raises_is_its_own(
    draws: Callable[..., hookline.Run], how: str, kind: type[HooklineError], sentence: str
) -> None:
    with pytest.raises(kind, match=rf"^engine 'broken' \(broken.py \w+\),? {sentence}"):
        draws(how)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("pass", "engine 'mine' .* has no method draw → write: async def draw"),
        ("def draw(self, request): return 1", "engine 'mine' .*: draw is a plain def, not async"),
        ("async def draw(self, request): return 1\n        async def sync(self, role, version): pass", "sync is async"),
        ("gives = {'score'}\n        async def draw(self, request): return 1", "gives 'score' and has no method score"),
    ],
)
def test_a_method_that_is_missing_or_of_the_other_sort_is_refused_by_the_plan(
    plugin: Write, tiny: Tiny, body: str, sentence: str
) -> None:
    path = plugin(f"""
    from hookline import Engine

    class Mine(Engine):
        {body}
    """)
    with pytest.raises(HooklineError, match=sentence):
        plan(tiny(engine="mine"), plugins=[path])


def test_a_long_wait_is_said_once(draws: Callable[..., hookline.Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SECONDS", 0.05)
    monkeypatch.setattr(waiting, "GRACE", 0.01)
    [notice] = draws("late = 0.3").notices
    assert notice.startswith("engine 'broken'")
    assert "has not answered for 0.05 s" in notice


def test_a_busy_loop_is_not_a_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(waiting, "SECONDS", 0.05)
    said: list[str] = []

    async def busy() -> None:
        await asyncio.sleep(0)
        time.sleep(0.2)

    asyncio.run(waiting.told_when_late(busy(), "it", said.append, set()))
    assert not said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_wait_that_never_ends(
    draws: Callable[..., hookline.Run], number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    timers = [threading.Timer(after, os.kill, [os.getpid(), number]) for after in (1.0, 1.8)]
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        draws("late = 60")
    assert "stopping: this step is finished and saved first; a second signal stops at once" in capfd.readouterr().err


@pytest.mark.parametrize("where", ["constructor", "setup", "hookline_reward"])
def test_a_component_does_not_end_the_process(plugin: Write, tiny: Tiny, tmp_path: Path, where: str) -> None:
    path = plugin(f"""
    class Mine(Component):
        def __init__(self, config):
            super().__init__(config)
            self.leave("constructor")

        def leave(self, where):
            if where == {where!r}:
                raise SystemExit("enough")

        def setup(self, ctx):
            self.leave("setup")

        @hookimpl
        def hookline_reward(self, rollout):
            self.leave("hookline_reward")
            return torch.zeros(len(rollout))
    """)
    with pytest.raises(HooklineError, match=rf"reward 'mine' .*{where}: SystemExit: enough"):
        hookline.run(tiny(reward="mine"), plugins=[path], out=tmp_path / "run")


def test_a_constructor_may_read_code(plugin: Write, tiny: Tiny) -> None:
    path = plugin("""
    import traceback

    class Mine(Component):
        def __init__(self, config):
            super().__init__(config)
            import linecache
            linecache.clearcache()
            traceback.format_stack()
            torch.manual_seed(3)
            if config.reads:
                open(config.reads)

        class Config(Config):
            reads: str = ""

        @hookimpl
        def hookline_reward(self, rollout):
            return torch.zeros(len(rollout))
    """)
    plan(tiny(reward="mine"), plugins=[path])
    with pytest.raises(HooklineError, match=r"opens a file \(/etc/hostname\) in its constructor"):
        plan(tiny(reward={"use": "mine", "reads": "/etc/hostname"}), plugins=[path])


@pytest.mark.parametrize(
    ("judged", "sentence"),
    [(True, "collected no judgement in 2 steps"), (False, "had judged rows in none of its 2 steps")],
)
def test_a_phase_without_rows_says_so(plugin: Write, tiny: Tiny, tmp_path: Path, judged: bool, sentence: str) -> None:
    path = plugin(f"""
    class Mine(Component):
        @hookimpl
        def hookline_reward(self, rollout):
            return Term(rollout.length_B.float(), torch.full((len(rollout),), {judged}))

    class Nobody(Component):
        name = "nobody"

        @hookimpl
        def hookline_judge(self, scored):
            return []
    """)
    described = tiny(reward="mine", advantage=None, update=None, feedback="nobody")
    run = hookline.run(described, plugins=[path], out=tmp_path / "run")
    assert list(run.notices) == [f"phase 'rl' {sentence}"]


def test_what_reads_a_data_file_stands_in_the_manifest(
    plugin: Write, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plugin("""
    from hookline import Format

    class Lines(Format):
        suffixes = (".lines",)

        def read(self, path):
            for line in path.read_text().splitlines():
                yield {"prompt": line}
    """, "lines")  # fmt: skip
    (tmp_path / "prompts.lines").write_text("a b\nb c\nc d\n")
    described = tiny(reward="tokens")
    described["phases"][0]["rollout"]["prompts"] = str(tmp_path / "prompts.lines")
    run = hookline.run(described, plugins=[path], out=tmp_path / "run")
    used = {(offer["kind"], offer["name"]) for offer in run.about["plugins"]}
    assert {("format", "lines"), ("format", "jsonl")} <= used
    assert "lines (lines.py" in capsys.readouterr().out


def test_the_checks_change_no_figure() -> None:
    """Rows of several lengths are padded as ever: 0 for ids and log-probs, the weights' version."""
    from hookline import Completion, Sampling

    def one(T: int) -> Completion:
        ids, logprobs = torch.arange(1, T + 1), -torch.rand(T)
        return Completion(token_ids=ids, finish_reason="length", logprobs=logprobs, versions=torch.full((T,), 4))

    found = [one(3), one(5)]
    asked = completions.Asked(Sampling(), max_new_tokens=5, ends=(9,), vocabulary=10, version=4)
    drawn = completions.join(found, asked, "engine 'x'")
    assert drawn.token_ids_BT.tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]
    assert found[1].logprobs is not None
    assert torch.equal(drawn.behaviour.logprobs_BT[1], found[1].logprobs)
    assert drawn.behaviour.version_BT.eq(4).all()


@pytest.mark.parametrize("use", ["float(x)", "1 + x", "x * 2", "bool(x)", "[*x]", "x > 0"])
def test_an_answer_of_once_that_is_not_awaited_is_told(plugin: Write, tiny: Tiny, tmp_path: Path, use: str) -> None:
    path = plugin(f"""
    async def ask():
        return 1.0

    class Mine(Component):
        @hookimpl
        def hookline_reward(self, ctx, rollout):
            x = ctx.once("price", ask)
            return torch.zeros(len(rollout)) + {use}
    """)
    with pytest.raises(PluginError, match=r"reward 'mine'.*ctx.once\('price', …\) of an async def returns an awaitable.* → await it"):
        hookline.run(tiny(reward="mine"), plugins=[path], out=tmp_path / "run")


def test_an_answer_of_once_may_be_awaited_in_each_way(plugin: Write, tiny: Tiny, tmp_path: Path) -> None:
    path = plugin("""
    import asyncio

    async def ask():
        return 1.0

    class Mine(Component):
        @hookimpl
        async def hookline_reward(self, ctx, rollout):
            a = await ctx.once("a", ask)
            b = await asyncio.create_task(ctx.once("b", ask))
            [c] = await asyncio.gather(ctx.once("c", ask))
            return rollout.token_ids_BT.float().sum(1) + a + b + c
    """)
    assert len(hookline.run(tiny(reward="mine"), plugins=[path], out=tmp_path / "run").rows()) == 2
