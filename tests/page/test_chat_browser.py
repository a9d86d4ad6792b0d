"""Talking with a model in a real Chromium: by keys and by mouse, on a telephone, in Chinese, with hostile replies, after failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from browsing import HOSTILE, NEEDS, TRAP, Browser
from serving import Served
from talking import Scripted

from hookline import Comparison, Event, Thumb
from hookline_plugins.page.writer import Reply

pytestmark = NEEDS
Begin = Callable[..., Served]
GONE = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
BACK = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


def told(messages: Sequence[Mapping[str, Any]], seed: int) -> str:
    return f"To *{messages[-1]['content']}*, variant {seed % 97}."


def come_in(browser: Browser, page: Served, name: str = "ann", **size: int) -> None:
    browser.come_in(page, name, **size)
    browser.until(lambda: not browser.one("#say").get_property("hidden"))


def say(browser: Browser, text: str) -> None:
    """Write a message and send it, and wait for the replies."""
    browser.until(lambda: browser.driver.execute_script("return document.activeElement.id") == "message")
    browser.keys(*text, "ENTER")
    browser.until(lambda: browser.text("#asked").startswith(("Which", "Do you")))


def stored(browser: Browser, page: Served, count: int) -> Event:
    found = browser.until(lambda: list(page.store.events()) if page.store.counts().events == count else None)
    browser.until(lambda: browser.text("#saved").startswith("Saved"))
    return found[-1]  # type: ignore[no-any-return]


def test_a_conversation_by_keys_alone(browser: Browser, served: Begin) -> None:
    page = served(writers=[Scripted("model-a", told)])
    come_in(browser, page)
    assert browser.driver.current_url.endswith("/chat"), "where there are no items, people talk"
    say(browser, "open it")
    cards = [card.text for card in browser.all("#candidates article")]
    assert len(cards) == 2
    browser.keys("2", "ENTER")
    event = stored(browser, page, 1)
    assert event.answer == Comparison(better=event.shown[1])  # type: ignore[arg-type]
    assert 0 < (event.shown_at or 0) <= (event.begun_at or 0) <= (event.submitted_at or 0)
    assert 0 < (event.seconds or 0) < 60
    say(browser, "close it")
    assert [one.get_attribute("class") for one in browser.all("#turns .turn")] == [
        "turn user",
        "turn assistant",
        "turn user",
    ]
    browser.keys("m")
    browser.keys(*"why", "ESCAPE", "4", "ENTER")
    event = stored(browser, page, 3)
    assert "goes on with answer A" in browser.text("#saved")
    # the last judgement is changed, while the next message is being typed
    browser.keys(*"next", "ESCAPE", "u")
    browser.until(lambda: browser.text("#editing"))
    assert browser.one("#comment").get_property("value") == "why"
    assert [button.text[1:].strip() for button in browser.all("#choices [aria-pressed=true]")] == ["Both are bad"]
    browser.keys("1", "ENTER")
    browser.until(lambda: page.store.counts().events == 5)
    events = [event for event in page.store.events() if event.answer.kind == "comparison"]
    assert events[-1].supersedes == events[-2].id
    browser.until(lambda: browser.one("#message").get_property("value") == "next")
    # a new conversation
    browser.keys("ESCAPE", "n")
    browser.until(lambda: not browser.all("#turns .turn"))
    browser.until(lambda: browser.driver.execute_script("return document.activeElement.id") == "message")
    assert browser.one("#message").get_property("value") == ""
    say(browser, "begin")
    browser.keys("b")
    browser.until(lambda: browser.one("#message").get_property("value") == "begin")
    browser.keys("ENTER")
    browser.until(lambda: browser.text("#asked").startswith("Which"))
    browser.keys("3", "ENTER")
    event = stored(browser, page, 6)
    assert (event.answer, len(event.prompt), event.extra["chat"]["turn"]) == (Comparison(better="tie"), 1, 0)
    assert event.extra["chat"]["session"] != events[0].extra["chat"]["session"]
    assert [line for line in browser.driver.get_log("browser") if line["level"] == "SEVERE"] == []


def test_a_single_reply_by_mouse(browser: Browser, served: Begin) -> None:
    page = served(writers=[Scripted("model-a", told)], replies=1)
    come_in(browser, page)
    browser.one("#message").send_keys("open it")
    browser.one("#send").click()
    browser.until(lambda: browser.text("#asked") == "Do you like this answer?")
    browser.all("#choices button")[1].click()
    browser.one("#submit").click()
    assert stored(browser, page, 1).answer == Thumb(up=False)
    browser.one("#undo").click()
    browser.until(lambda: browser.text("#editing"))
    browser.one("#back").click()
    browser.until(lambda: not browser.one("#say").get_property("hidden"))


def test_replies_are_seen_as_they_are_written_and_a_reload_finds_them(browser: Browser, served: Begin) -> None:
    model = Scripted("model-a", lambda *_: Reply(text="half a sent"))
    model.hold = True
    page = served(writers=[model])
    come_in(browser, page)
    browser.keys(*"hi", "ENTER")
    browser.until(lambda: "half a sent" in browser.text("#candidates"))
    assert browser.one("#candidates").get_attribute("aria-busy") == "true"
    assert not browser.all("#choices button")
    browser.open(page.url + "/chat")
    browser.until(lambda: "half a sent" in browser.text("#candidates"))
    for n, reply in enumerate(model.begun):
        reply.text = f"half a sentence, and the rest {n}"
    model.finish()
    browser.until(lambda: browser.text("#asked").startswith("Which"))
    assert browser.one("#candidates").get_attribute("aria-busy") == "false"
    assert browser.one("#candidates").get_attribute("aria-live") == "polite"
    assert browser.text("#saved") == "The reply is complete."
    assert "the rest" in browser.text("#candidates")


def test_nothing_is_lost_where_the_model_fails_or_the_server_is_gone(browser: Browser, served: Begin) -> None:
    failing = Scripted("model-a", lambda *_: Reply(state="failed", why="broken"))
    page = served(writers=[failing])
    come_in(browser, page)
    browser.keys(*"hi", "ENTER")
    browser.until(lambda: browser.text("#asked").startswith("No reply came. Your message is kept"))
    failing.says = told
    browser.keys("ENTER")
    browser.until(lambda: browser.text("#asked").startswith("Which"))
    # the server is restarted before anything was judged: the browser has the message
    page.page.talks._talks.clear()
    browser.open(page.url + "/chat")
    browser.until(lambda: browser.text("#asked").startswith("Which"))
    assert "hi" in browser.text("#turns")
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", GONE)
    browser.keys("1", "ENTER")
    browser.until(lambda: "Not saved yet" in browser.text("#banner"))
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", BACK)
    stored(browser, page, 1)
    browser.until(lambda: browser.text("#banner") == "")
    failing.says = lambda *_: Reply(state="failed", why="full")
    browser.keys(*"more", "ENTER")
    browser.until(lambda: browser.text("#asked").startswith("The conversation is too long"))
    assert browser.one("#again").get_property("hidden")
    browser.keys("b")
    browser.until(lambda: browser.one("#message").get_property("value") == "more")
    assert page.store.counts().events == 1


def test_replies_arrive_where_a_message_could_not_be_taken_back(browser: Browser, served: Begin) -> None:
    model = Scripted("model-a", told)
    model.hold = True
    page = served(writers=[model])
    come_in(browser, page)
    browser.keys(*"hi", "ENTER")
    browser.until(lambda: "To hi" in browser.text("#candidates"))
    browser.driver.execute_script("""
        const before = window.fetch;
        const late = () => new Promise((_, no) => setTimeout(() => { window.failed = true; no(new TypeError("no network")); }, 1000));
        window.fetch = (path, more) => String(path).includes("take-back") ? late() : before(path, more);
    """)
    browser.keys("b")
    browser.until(lambda: browser.driver.execute_script("return window.failed"))
    model.finish()
    browser.until(lambda: browser.text("#asked").startswith("Which"))


def test_hostile_replies_run_nothing(browser: Browser, served: Begin) -> None:
    page = served(writers=[Scripted("model-a", lambda *_: HOSTILE)], title=HOSTILE, system=HOSTILE)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TRAP})
    come_in(browser, page, "<img src=x onerror=RAN()>")
    browser.driver.execute_script("document.getElementById('message').value = arguments[0]", HOSTILE)
    for key in ("1", "2"):
        browser.one("#send").click()
        browser.until(lambda: browser.text("#asked").startswith("Which"))
        assert browser.text("#help") == "Both replies are the same."
        browser.keys(key)
        browser.driver.execute_script("document.getElementById('comment').value = arguments[0]", HOSTILE)
        count = page.store.counts().events
        browser.keys("ENTER")
        browser.until(lambda count=count: page.store.counts().events == count + 2)  # type: ignore[misc]
        browser.until(lambda: not browser.one("#say").get_property("hidden"))
        browser.driver.execute_script("document.getElementById('message').value = arguments[0]", HOSTILE)
    browser.open(page.url + "/chat")
    browser.until(lambda: len(browser.all("#turns .turn")) == 5)
    time.sleep(0.2)
    assert browser.driver.title != "RAN"
    assert "<script>" in browser.text("#turns"), "it is shown as what it is"


@pytest.mark.parametrize("width", [360, pytest.param(768, marks=pytest.mark.slow), 1440])
def test_it_fits_every_width_and_axe_finds_nothing_serious(width: int, browser: Browser, served: Begin) -> None:
    long = "a long reply with `code` and words " * 12 + "x" * 300
    model = Scripted("model-a", lambda messages, seed: long + str(seed))
    page = served(writers=[model], system="Be short.", guidelines="# Be fair")
    come_in(browser, page, width=width)
    browser.looks_right("light", width)
    model.hold = True
    browser.keys(*"hi", "ENTER")
    browser.until(lambda: browser.text("#asked").startswith("The reply is being"))
    browser.looks_right("dark", width)
    model.finish()
    browser.until(lambda: browser.text("#asked").startswith("Which"))
    browser.keys("1")
    browser.looks_right("light", width)
    browser.keys("ENTER")
    stored(browser, page, 1)
    browser.looks_right("dark", width)
    browser.keys("ESCAPE", "u")
    browser.until(lambda: browser.text("#editing"))
    browser.looks_right("light", width)
    browser.keys("?")
    browser.looks_right("dark", width)


def test_it_speaks_chinese(browser: Browser, served: Begin) -> None:
    page = served(writers=[Scripted("model-a", told)])
    come_in(browser, page)
    browser.driver.execute_script(
        "const s = document.getElementById('language'); s.value = 'zh'; s.dispatchEvent(new Event('change'))"
    )
    browser.until(lambda: browser.text("#asked") == "请给模型写一条消息。")
    browser.one("#message").send_keys("你好")
    # Enter that chooses a character sends nothing
    browser.driver.execute_script(
        "document.getElementById('message').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"
    )
    time.sleep(0.2)
    assert not browser.one("#say").get_property("hidden")
    browser.keys("ENTER")
    browser.until(lambda: browser.text("#asked") == "哪个回答更好？")
    browser.keys("1", "ENTER")
    browser.until(lambda: browser.text("#saved") == "已保存。对话以回答 A 继续。")
    browser.driver.delete_cookie("language")
    [event] = page.store.events()
    assert event.prompt[-1]["content"] == "你好"  # type: ignore[index]
