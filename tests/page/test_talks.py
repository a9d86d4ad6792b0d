"""People talk with a model and judge its replies: nothing is lost, nobody sees which model wrote what, and it trains as it is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import SECRET, Served
from talking import Scripted

import hookline
from hookline import Comment, Comparison, DataError, Skip, Thumb
from hookline.testing import open_phase
from hookline_plugins.asking import Question
from hookline_plugins.page import writer as writer_module
from hookline_plugins.page.rendering import Media
from hookline_plugins.page.talks import LONGEST, MOST, Talks
from hookline_plugins.page.writer import Reply, Writer
from shapes import build

Begin = Callable[..., Served]
Json = dict[str, Any]
ONE, OTHER = "0" * 32, "1" * 32
OPTIONS = {"max_new_tokens": 12, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "device": "cpu"}


def echo(messages: Sequence[Mapping[str, Any]], seed: int) -> str:
    return f"{len(messages)} messages, seed {seed}"


class Person:
    """Somebody who talks by HTTP."""

    def __init__(self, page: Served, name: str = "ann", session: str = ONE) -> None:
        self.client, self.session, self.count = page.come_in(name), session, 0

    def state(self, **more: str) -> Json:
        found: Json = self.client.get("/chat/talk", params={"session": self.session, **more}).json()
        return found

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json={"session": self.session, **body})

    def say(self, text: str) -> Json:
        """Say something, and wait for the replies."""
        state = self.state()
        reply = self.post("/chat/say", text=text, number=state["number"])
        assert reply.status_code == 200, reply.text
        return self.wait()

    def wait(self) -> Json:
        end = time.monotonic() + 60
        while (turn := self.state(turn="alone")["turn"])["state"] == "writing":
            assert time.monotonic() < end
            time.sleep(0.02)
        return turn  # type: ignore[no-any-return]

    def judge(self, answer: Json, **more: Any) -> httpx.Response:
        self.count += 1
        number = more.pop("number", None)
        number = self.state()["number"] if number is None else number
        body = {
            "id": f"judged-{self.session}-{self.count}",
            "number": number,
            "answer": answer,
            "times": {"active": 2.5},
            **more,
        }
        return self.post("/chat/judge", **body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen2", tmp_path_factory.mktemp("models") / "tiny-model")


@pytest.fixture(scope="module")
def real(folder: Path) -> Iterator[Writer]:
    """A model in a process of its own."""
    made = Writer(str(folder), OPTIONS)
    made.ready()
    yield made
    made.close()


# -- with a real model


def test_a_conversation_becomes_comparisons_that_train_as_they_are(
    served: Begin, real: Writer, folder: Path, tmp_path: Path
) -> None:
    page = served(writers=[real], system="Be short.")
    ann = Person(page)
    turn = ann.say("open the file")
    assert turn["state"] == "ready"
    assert len(turn["candidates"]) == 2
    assert ann.state() == ann.state(), "a reload finds the conversation as it was"
    assert ann.judge({"better": 0}, comment="clearer").status_code == 200
    turn = ann.say("and close it")
    after = ann.judge({"better": "both-bad"}).json()
    first, comment, second = page.store.events()
    begin = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "open the file"})
    assert first.prompt == begin
    assert first.annotator == "ann"
    assert first.seconds == 2.5
    assert first.answer == Comparison(better=first.shown[0])  # type: ignore[arg-type]
    assert comment.answer == Comment(text="clearer")
    assert {(one.by.name, one.by.weights) for one in first.candidates if one.by} == {("tiny-model", real.by.weights)}
    assert len(real.by.weights) == 12
    about = first.extra["chat"]
    assert (about["session"], about["turn"], about["continues"]) == (ONE, 0, first.shown[0])
    assert len(set(about["seeds"])) == 2
    assert about["sampling"] == {key: value for key, value in OPTIONS.items() if key != "device"}
    chosen = first.candidates[first.shown[0]].text
    assert second.prompt == (
        *begin,
        {"role": "assistant", "content": chosen},
        {"role": "user", "content": "and close it"},
    )
    assert second.extra["chat"]["continues"] == second.shown[0], "of two bad ones, the one shown first goes on"
    assert after["last"]["continues"] == 0
    # the seed that is kept draws the same reply again
    speaker = hookline.speaker(folder, "cpu")
    again = "".join(speaker.reply(list(first.prompt), seed=about["seeds"][0], max_new_tokens=12))  # type: ignore[arg-type]
    assert again == first.candidates[0].text
    # a restarted page goes on, and the same message has the same replies
    said = ann.say("write")["candidates"]
    talks = Talks(page.store, SECRET, [real], Question(), Media(), system="Be short.")
    assert talks.shown("ann", None)["session"] == ONE, "the newest conversation"
    state = talks.shown("ann", ONE)
    assert state["turn"] is None
    assert state["turns"] == ann.state()["turns"]
    talks.say("ann", {"session": ONE, "number": 2, "text": "write"})
    while (turn := talks.shown("ann", ONE)["turn"])["state"] == "writing":
        time.sleep(0.02)
    assert turn["candidates"] == said
    # and what was judged trains without a script
    made: Json = {
        "name": "talked", "seed": 1, "device": "cpu", "trackers": [], "model": {"path": str(folder)},
        "phases": [{
            "name": "learn", "rollout": {"use": "preferences", "path": f"sqlite:///{tmp_path / 'answers.db'}", "rows": 1},
            "update": "dpo", "steps": 1,
        }],
    }  # fmt: skip
    with open_phase(made) as loop:
        batch = loop.hooks.rollout(loop.ctx)
    best = int(batch.extra["recorded_B"].argmax())
    assert "Be short." in batch.prompt_text(best)
    assert batch.response_text(best) == chosen.strip("\x00")


def test_a_conversation_without_room_gives_a_sentence(served: Begin, real: Writer) -> None:
    page = served(writers=[real])
    ann = Person(page)
    turn = ann.say("word " * 400)
    assert (turn["state"], turn["why"], turn["candidates"]) == ("failed", "long", [])
    assert ann.post("/chat/take-back", number=0).json()["turn"] is None
    ann.say("open " * 25)
    ann.judge({"better": 0})
    turn = ann.say("close " * 25)
    assert turn["why"] == "full"
    assert ann.post("/chat/take-back", number=1).json()["turn"] is None
    assert ann.say("close")["state"] == "ready"


def test_a_conversation_without_room_is_refused_for_its_reason(folder: Path) -> None:
    speaker = hookline.speaker(folder, "cpu")
    system, short = {"role": "system", "content": "Be short."}, {"role": "user", "content": "open"}
    long, reply = {"role": "user", "content": "open " * 35}, {"role": "assistant", "content": "yes"}
    for said, why, words in (
        ([long], "long", "a message of this length"),
        ([system, long], "long", "a message of this length"),
        ([system, long, reply, short], "full", "the conversation"),
    ):
        assert speaker.refused(said) == why
        with pytest.raises(DataError, match=f"no room for an answer to {words}"):
            speaker.reply(said)
    assert speaker.refused([system, short]) == ""
    assert speaker.refused([long], 8) == "", "there is room for what is asked for"


@pytest.mark.slow(20)
def test_a_model_that_dies_gives_a_sentence_and_nothing_is_lost(served: Begin, real: Writer) -> None:
    page = served(writers=[real])
    ann = Person(page)
    ann.say("open")
    ann.judge({"better": 0})
    before = ann.say("close")["candidates"]
    ann.post("/chat/take-back", number=1)
    assert real._process is not None
    os.kill(real._process.pid, signal.SIGSTOP)
    assert ann.post("/chat/say", text="close", number=1).status_code == 200
    os.kill(real._process.pid, signal.SIGKILL)
    turn = ann.wait()
    assert (turn["state"], turn["why"], turn["text"]) == ("failed", "broken", "close")
    assert ann.judge({"better": 0}).status_code == 409
    assert ann.say("close")["candidates"] == before, "it was started again, with the same seeds"
    assert len(list(page.store.events())) == 1


@pytest.mark.slow(10)
def test_a_reply_that_takes_too_long_fails(real: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "SILENT", 0.0)
    monkeypatch.setattr(real, "slowest", 0.1)
    reply = real.write([{"role": "user", "content": "open"}], 1)
    process = real._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.2)
    assert (real.look(reply).state, reply.why) == ("failed", "slow")
    assert process.wait(10) == -signal.SIGKILL, "a process that does not answer is ended"


def test_nobody_waits_for_a_process_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = tmp_path / "asleep"
    asleep.write_text("#!/bin/sh\nexec sleep 60\n")
    asleep.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(asleep))
    monkeypatch.setattr(writer_module, "SILENT", 0.0)
    writer, replies = Writer("model", OPTIONS, slowest=0.1), list[Reply]()
    message = {"role": "user", "content": "汉" * LONGEST}  # more than a pipe holds

    def use() -> None:
        replies.extend(writer.write([message], seed) for seed in range(2))
        time.sleep(0.2)
        for reply in replies:
            writer.look(reply)

    person = threading.Thread(target=use, daemon=True)
    person.start()
    person.join(20)
    assert not person.is_alive(), "the page waits for the model"
    assert {(reply.state, reply.why) for reply in replies} == {("failed", "slow")}
    process = writer._process
    assert process is not None
    assert process.wait(10) == -signal.SIGKILL
    writer.close()


# -- who goes on, and with what


@pytest.mark.parametrize(
    ("given", "stored", "goes_on"),
    [
        ({"better": 1}, lambda shown: Comparison(better=shown[1]), 1),
        ({"better": "tie"}, lambda shown: Comparison(better="tie"), 0),
        ({"better": "both-bad"}, lambda shown: Comparison(better="both-bad"), 0),
        ({"skip": ""}, lambda shown: Skip(), 0),
    ],
    ids=["better", "tie", "both bad", "skip"],
)
def test_one_reply_goes_on(given: Json, stored: Any, goes_on: int, served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    for session in ("a" * 32, "b" * 32, "c" * 32):  # sides are shuffled
        ann = Person(page, session=session)
        shown = ann.say("hi")["candidates"]
        state = ann.judge(given).json()
        event = list(page.store.events())[-1]
        assert event.answer == stored(event.shown)
        assert state["turns"][-1]["html"] == shown[goes_on]["html"]
        assert state["last"]["continues"] == goes_on
        assert state["number"] == 1


def test_a_single_reply_is_liked_or_not(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)], replies=1)
    ann = Person(page)
    turn = ann.say("hi")
    assert (turn["kind"], len(turn["candidates"])) == ("thumb", 1)
    assert ann.judge({"up": False}).json()["turns"][-1]["html"] == turn["candidates"][0]["html"]
    assert next(iter(page.store.events())).answer == Thumb(up=False)


def test_the_last_judgement_can_be_changed_and_then_the_other_reply_goes_on(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    ann = Person(page)
    one, two = (each["html"] for each in ann.say("hi")["candidates"])
    last = ann.judge({"better": 0}, comment="hm").json()["last"]
    assert (last["given"], last["comment"], last["number"]) == ({"better": 0, "strength": None}, "hm", 0)
    ann.say("what I wrote next")
    state = ann.judge({"better": 1}, number=0, replaces=last["replaces"]).json()
    assert (state["turns"][-1]["html"], state["turn"], state["number"]) == (two, None, 1)
    first, _, second = page.store.events()
    assert second.supersedes == first.id
    assert (second.item, second.extra["chat"]["continues"]) == (first.item, second.shown[1])
    assert hookline.settled([first, second]) == [second]
    assert ann.judge({"better": 0}, number=0, replaces=last["replaces"]).status_code == 409, "it was changed already"
    restarted = Talks(page.store, SECRET, [Scripted("a", echo)], Question(), Media())
    assert restarted.shown("ann", ONE)["turns"][-1]["html"] == two != one


def test_a_page_with_another_number_of_replies_goes_on_with_the_conversation(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    ann = Person(page)
    ann.say("hi")
    ann.judge({"better": 0})
    single = Talks(page.store, SECRET, [Scripted("a", echo)], Question(), Media(), replies=1)
    state = single.shown("ann", ONE)
    assert (state["last"]["kind"], len(state["last"]["candidates"])) == ("comparison", 2)
    changed = {
        "id": "changed-0001",
        "session": ONE,
        "number": 0,
        "answer": {"better": "tie"},
        "replaces": state["last"]["replaces"],
    }
    single.judge("ann", changed)
    assert single.say("ann", {"session": ONE, "number": 1, "text": "more"})["turn"]["kind"] == "thumb"
    assert [event.answer.kind for event in page.store.events()] == ["comparison"] * 2


def test_an_answer_that_is_sent_again_is_stored_once(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    ann = Person(page)
    ann.say("hi")
    body = {"id": "judged-again", "number": 0, "answer": {"better": 0}}
    assert [ann.post("/chat/judge", **body).status_code for _ in range(3)] == [200] * 3
    assert len(list(page.store.events())) == 1
    ann.say("next")
    ann.post("/chat/say", text="next", number=1)
    assert ann.post("/chat/judge", **body).json()["turn"]["state"] == "ready", "the turn that waits is still there"


def test_a_message_that_is_sent_again_has_only_the_replies_written_that_failed(served: Begin) -> None:
    model = Scripted("a", lambda *_: Reply(state="failed", why="broken") if len(model.begun) == 1 else "fine")
    ann = Person(served(writers=[model]))
    assert ann.say("hi")["state"] == "failed"
    assert len(model.begun) == 2
    assert ann.say("hi")["state"] == "ready"
    assert len(model.begun) == 3, "the reply that was complete stays"


def test_replies_to_what_was_said_after_a_judgement_that_is_changed_are_written_no_further(served: Begin) -> None:
    model = Scripted("a", echo)
    ann = Person(served(writers=[model]))
    ann.say("hi")
    last = ann.judge({"better": 0}).json()["last"]
    model.hold = True
    ann.post("/chat/say", text="next", number=1)
    assert ann.judge({"better": 1}, number=0, replaces=last["replaces"]).status_code == 200
    assert [(reply.state, reply.why) for reply in model.begun[2:]] == [("failed", "stopped")] * 2


def test_a_person_has_a_number_of_conversations_in_memory(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    assert page.page.talks is not None
    ann, bob = Person(page), Person(page, "bob")
    bob.state()
    ann.say("hi")
    ann.judge({"better": 0})
    shown = ann.state()["turns"]
    for n in range(MOST + 5):
        ann.session = f"{n + 1:032x}"
        ann.state()
    assert len(page.page.talks._talks) == MOST + 1, "and one of bob"
    ann.session = ONE
    assert ann.state()["turns"] == shown, "from the store"


# -- blinded


def test_nobody_sees_which_of_two_models_wrote_what(served: Begin) -> None:
    fast, slow = Scripted("model-fast", lambda *_: "one"), Scripted("model-slow", lambda *_: "two")
    page = served(writers=[fast, slow])
    sides = set()
    for n in range(12):
        ann = Person(page, f"ann{n}", session=f"{n:032x}")
        slow.hold = True
        ann.post("/chat/say", text="hi", number=0)
        turn = ann.state()["turn"]
        assert (turn["state"], turn["candidates"]) == ("writing", []), "the faster one waits for the other"
        slow.finish()
        turn = ann.wait()
        text = json.dumps(ann.state()) + ann.client.get("/chat").text
        assert not [word for word in ("model-", "hash", "secret", "seed", "weights") if word in text]
        sides.add(turn["candidates"][0]["html"])
        ann.judge({"better": [one["html"] for one in turn["candidates"]].index("<p>two</p>\n")})
    assert len(sides) == 2
    events = list(page.store.events())
    assert {event.answer for event in events} == {Comparison(better=1)}
    assert [one.by.name for one in events[0].candidates if one.by] == ["model-fast", "model-slow"]


def test_of_one_model_replies_are_seen_as_they_are_written(served: Begin) -> None:
    model = Scripted("a", lambda *_: Reply(text="half a sent"))
    model.hold = True
    page = served(writers=[model])
    ann = Person(page)
    ann.post("/chat/say", text="hi", number=0)
    turn = ann.state()["turn"]
    assert (turn["state"], [one["html"] for one in turn["candidates"]]) == ("writing", ["<p>half a sent</p>\n"] * 2)
    assert ann.judge({"better": 0}).status_code == 409
    bob = Person(page, "bob")
    assert bob.state()["turn"] is None, "another person's conversation, by the same name"
    ann.session = OTHER
    ann.post("/chat/say", text="anew", number=0)
    ann.session = ONE
    assert ann.state()["turn"]["why"] == "stopped", "one conversation at a time"


# -- what is refused


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("say", {"text": "hi", "number": 1}, 409),
        ("say", {"text": " \n", "number": 0}, 422),
        ("say", {"text": 3, "number": 0}, 422),
        ("say", {"text": "x" * (LONGEST + 1), "number": 0}, 422),
        ("say", {"text": "\ud800", "number": 0}, 422),
        ("say", {"text": "hi", "number": 0, "session": "../../etc"}, 422),
        ("say", {"text": "hi", "number": 0, "session": None}, 422),
        ("judge", {"id": "judged-0001", "number": 0, "answer": {"better": 0}}, 409),
        ("judge", {"id": "judged-0001", "number": 0, "answer": {"better": 0}, "replaces": "x"}, 409),
        ("judge", {"number": 0, "answer": {"better": 0}}, 422),
        ("take-back", {"number": 0}, 200),
    ],
)
def test_what_has_no_place_in_the_conversation_is_refused(path: str, body: Json, status: int, served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    client = page.come_in("ann")
    reply = client.post(
        f"/chat/{path}", content=json.dumps({"session": ONE, **body}), headers={"content-type": "application/json"}
    )
    assert reply.status_code == status, reply.text
    assert not list(page.store.events())


def test_messages_come_one_after_the_other_and_not_too_fast(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    ann = Person(page)
    ann.say("hi")
    assert ann.post("/chat/say", text="something else", number=0).status_code == 409
    assert ann.judge({"better": 2}).status_code == 422
    assert ann.judge({"better": 0}, number=7).status_code == 409
    found = []
    for n in range(1, 20):
        found.append(ann.post("/chat/say", text=f"message {n}", number=0).status_code)
        ann.post("/chat/take-back", number=0)
    assert found[0] == 409
    assert found[5] == 200
    assert found[-1] == 429
    bob = Person(page, "bob")
    assert bob.say("hi")["state"] == "ready", "others are not slowed down"


def test_a_page_without_a_model_has_no_conversations(served: Begin) -> None:
    client = served().come_in("ann")
    assert client.get("/chat").status_code == 404
    assert client.get("/chat/talk").status_code == 404
    assert client.post("/chat/say", json={}).status_code == 404
    assert "/chat" not in client.get("/").text


def test_a_person_who_is_removed_leaves_no_conversation(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    ann, boss = Person(page), page.come_in("boss", "coordinator")
    ann.say("hi")
    ann.judge({"better": 0})
    assert boss.post("/team/remove", json={"name": "ann", "forget": True}).json()["events"] == 1
    assert Person(page).state()["turns"] == []


def test_a_person_who_is_removed_before_a_judgement_leaves_no_message(served: Begin) -> None:
    page = served(writers=[Scripted("a", echo)])
    ann, boss = Person(page), page.come_in("boss", "coordinator")
    ann.say("my secret")
    assert boss.post("/team/remove", json={"name": "ann", "forget": True}).json() == {"removed": "ann", "events": 0}
    assert Person(page).state()["turn"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chat": ("a", "a")}, "twice"),
        ({"chat": ("a", "b"), "replies": 1}, "two models need two replies"),
        ({"chat": ("a",), "temperature": 0}, "with --temperature 0 both replies are the same"),
        ({"chat": ("a",), "top-k": 1}, "with --top-k 1 both replies are the same"),
        ({"chat": ("a",), "min-p": 1}, "with --min-p 1 both replies are the same"),
        ({"system": "Be short."}, "--system does nothing without --chat"),
        ({"replies": 1}, "--replies does nothing without --chat"),
        ({"max-new-tokens": 8}, "--max-new-tokens does nothing without --chat"),
        pytest.param({"chat": ("none",)}, "there is no model folder", marks=pytest.mark.slow(10)),
    ],
    ids=str,
)
def test_the_command_refuses_what_cannot_be(
    options: Json, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hookline.cli import main

    monkeypatch.chdir(tmp_path)
    flags = [
        f
        for key, value in options.items()
        for v in (value if isinstance(value, tuple) else (value,))
        for f in (f"--{key}", str(v))
    ]
    assert main(["collect", "--store", "sqlite:///a.db", *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow(40)
def test_the_command_serves_two_models_and_a_kill_loses_nothing(folder: Path, tmp_path: Path) -> None:
    build("qwen2", tmp_path / "other", seed=3)
    words = [
        "collect",
        "--chat",
        str(folder),
        "--chat",
        "other",
        "--store",
        "sqlite:///a.db",
        "--port",
        "0",
        "--max-new-tokens",
        "8",
    ]
    children = [_collecting(tmp_path, words)]
    try:
        ann = _visitor(children[-1][1])
        state = _until_ready(ann, ann.get("/chat/talk").json()["session"], "hi", 0)
        judged = {"id": "judged-0001", "session": state["session"], "number": 0, "answer": {"better": 1}}
        after = ann.post("/chat/judge", json=judged).json()
        waiting = _until_ready(ann, state["session"], "and then", 1)["turn"]["candidates"]
        writers = _children(children[-1][0].pid)
        assert len(writers) == 2
        children[-1][0].kill()
        children[-1][0].wait()
        end = time.monotonic() + 20
        while any(
            Path(f"/proc/{one}/cmdline").exists() and Path(f"/proc/{one}/cmdline").read_bytes() for one in writers
        ):
            assert time.monotonic() < end, "the models' processes end with the page"
            time.sleep(0.1)
        children.append(_collecting(tmp_path, words))
        ann = _visitor(children[-1][1])
        again = ann.get("/chat/talk").json()
        assert (again["session"], again["turns"], again["turn"]) == (state["session"], after["turns"], None)
        assert ann.post("/chat/judge", json=judged).json()["stored"], "sent again, it is stored once"
        assert _until_ready(ann, state["session"], "and then", 1)["turn"]["candidates"] == waiting
    finally:
        for child, _ in children:
            child.kill()
    with hookline.store(f"sqlite:///{tmp_path / 'a.db'}") as store:
        [event] = store.events()
    assert [one.by.name for one in event.candidates if one.by] == ["tiny-model", "other"]


def _collecting(where: Path, words: Sequence[str]) -> tuple[subprocess.Popen[str], str]:
    """`hookline collect`, and its link."""
    child = subprocess.Popen([sys.executable, "-m", "hookline", *words], cwd=where, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, next(line.strip() for line in child.stdout if "/enter#" in line)


def _visitor(link: str) -> httpx.Client:
    address, _, token = link.partition("/enter#")
    client = httpx.Client(base_url=address, headers={"origin": address}, timeout=30)
    assert client.post("/enter", json={"token": token}).status_code == 200
    client.headers["x-csrf"] = re.findall(r'name="csrf" content="([0-9a-f]+)"', client.get("/hello").text)[0]
    return client


def _until_ready(client: httpx.Client, session: str, text: str, number: int) -> Json:
    assert client.post("/chat/say", json={"session": session, "text": text, "number": number}).status_code == 200
    while True:
        state: Json = client.get("/chat/talk", params={"session": session}).json()
        if state["turn"]["state"] != "writing":
            return state
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    return [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
