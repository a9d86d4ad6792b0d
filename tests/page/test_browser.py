"""The page in a real Chromium: by keyboard and by mouse, on a telephone, in two languages, with hostile texts, after failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from browsing import HOSTILE, NEEDS, TRAP, Browser
from serving import Served, item

from hookline import Comparison, Correction, Event, Ranking, Rating, Skip, Spans, Thumb
from hookline_plugins.asking import Question

pytestmark = NEEDS
Begin = Callable[..., Served]
TALK = ({"role": "user", "content": HOSTILE}, {"role": "tool", "content": HOSTILE})


def test_every_kind_is_answered_by_keys_alone(browser: Browser, served: Begin) -> None:
    kinds = [
        item("a", "same", "other"),
        item("b", "x"),
        item("c", "x", "y", "z"),
        item("d", "teh cat", extra={"ask": {"kind": "correction"}}),
        item("e", "one two three", extra={"ask": {"kind": "spans"}}),
        item("f", "x", extra={"ask": {"kind": "thumb"}}),
        item("g", "x", "y", extra={"ask": {"strength": True}}),
        item("h", "x", extra={"ask": {"axes": ["helpful", "honest"]}}),
        item("k", "x", extra={"ask": {"low": 1, "high": 3, "step": 0.5}}),
        item("l", "x", extra={"ask": {"low": 0, "high": 1, "step": 0}}),
        item("m", "x", extra={"ask": {"low": 1, "high": 10}}),
        item("n", "今天天气很好\n第二行", extra={"ask": {"kind": "spans"}}),
        item("i", "x", "y\nz"),
    ]  # fmt: skip
    page = served(kinds)
    browser.come_in(page)

    def order(event: Event) -> tuple[int, ...]:
        return event.shown

    shown_keys = lambda selector: [key.text for key in browser.all(f"{selector} kbd")]  # noqa: E731
    assert shown_keys("#candidates") == ["1", "2"]
    browser.keys("1")
    event = browser.submit(page)
    assert event.answer == Comparison(better=order(event)[0])  # type: ignore[arg-type]
    browser.keys("4")
    assert browser.submit(page).answer == Rating(marks={"overall": 4})
    browser.keys("ENTER")
    assert browser.text("#saved") == "Nothing is chosen yet.", "an order that nobody touched is no answer"
    browser.keys("3", "ARROW_UP", "ARROW_UP", "2", "t")
    assert browser.text("#saved") == ""
    event = browser.submit(page)
    a, b, c = order(event)
    assert event.answer == Ranking(order=((c,), tuple(sorted((a, b)))))
    assert browser.text("#help").startswith("w goes into the text")
    browser.keys("w", "END", "!")
    assert browser.text("#submit kbd") == "Ctrl+Enter"
    browser.keys("ESCAPE")
    assert browser.text("#submit kbd") == "Enter"
    assert browser.text("#changes ins") == "!"
    assert browser.submit(page).answer == Correction(text="teh cat!")
    browser.keys("ARROW_RIGHT")
    browser.keys("ARROW_RIGHT", shift=True)
    browser.keys("1")
    assert browser.text("#words-of-text mark") == "one"
    event = browser.submit(page)
    assert isinstance(event.answer, Spans)
    assert [(span.start, span.end, span.label) for span in event.answer.spans] == [(0, 7, "wrong")]
    browser.keys("2")
    assert browser.submit(page).answer == Thumb(up=False)
    assert shown_keys("#candidates") == [], "2 is how much better A is, not answer B"
    browser.keys("6")
    event = browser.submit(page)
    assert event.answer == Comparison(better=order(event)[1], strength=2)  # type: ignore[arg-type]
    browser.keys("5", "ENTER")
    assert browser.text("#saved") == "Not every row has a mark yet."
    browser.keys("2")
    assert browser.submit(page).answer == Rating(marks={"helpful": 5, "honest": 2})
    assert shown_keys("#choices") == ["1", "2", "3", "4", "5"]
    browser.keys("2", "ARROW_RIGHT")
    assert browser.submit(page).answer == Rating(marks={"overall": 2.0}, low=1, high=3, step=0.5)
    assert "slider" in browser.text("#help")
    browser.keys("ARROW_RIGHT", "ARROW_LEFT")
    assert browser.submit(page).answer == Rating(marks={"overall": 0.49}, low=0, high=1, step=0)
    assert shown_keys("#choices") == [*"1234567890"]
    browser.keys("0")
    assert browser.submit(page).answer == Rating(marks={"overall": 10}, low=1, high=10)
    browser.keys("ARROW_RIGHT", "1")
    assert browser.text("#words-of-text mark") == "今天"
    browser.submit(page)
    assert browser.one("#candidates [data-side] p").value_of_css_property("white-space-collapse") == "preserve-breaks"
    browser.keys("s", "2")
    browser.until(lambda: "nothing to answer" in browser.text("#asked"))
    assert list(page.store.events())[-1].answer == Skip(reason="expertise")
    assert not browser.one("#submit").is_displayed()
    assert not browser.one("#undo").is_displayed()
    browser.keys("u")
    browser.until(lambda: browser.one("#editing").is_displayed())
    event = list(page.store.events())[0]
    assert 0 < (event.shown_at or 0) <= (event.begun_at or 0) <= (event.submitted_at or 0)
    assert 0 < (event.seconds or 0) < 60
    assert [line for line in browser.driver.get_log("browser") if line["level"] == "SEVERE"] == []


def test_every_kind_is_answered_by_mouse(browser: Browser, served: Begin) -> None:
    page = served(
        [
            item("a", "x", "y"),
            item("b", "x"),
            item("c", "x", "y", "z"),
            item("d", "one two", extra={"ask": {"kind": "spans"}}),
        ]
    )
    browser.come_in(page)

    def click(label: str) -> None:
        next(button for button in browser.all("#choices button") if button.text.endswith(label)).click()

    def stored(count: int) -> Event:
        browser.one("#submit").click()
        return browser.until(lambda: found[-1] if len(found := list(page.store.events())) == count else None)  # type: ignore[no-any-return]

    click("Equally good")
    assert stored(1).answer == Comparison(better="tie")
    browser.until(lambda: "How good" in browser.text("#asked"))
    click("5")
    assert stored(2).answer == Rating(marks={"overall": 5})
    browser.until(lambda: "order" in browser.text("#asked"))
    browser.driver.execute_script(
        "const cards = document.querySelectorAll('#candidates article'), data = new DataTransfer();"
        "cards[2].dispatchEvent(new DragEvent('dragstart', {dataTransfer: data, bubbles: true}));"
        "cards[0].dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));"
    )
    event = stored(3)
    a, b, c = event.shown
    assert event.answer == Ranking(order=((c,), (a,), (b,)))
    browser.until(lambda: "Mark" in browser.text("#asked"))
    from selenium.webdriver import ActionChains

    words = browser.all("#words-of-text .word")
    ActionChains(browser.driver).move_to_element(words[0]).click_and_hold().move_to_element(
        words[2]
    ).release().perform()
    click("good")
    event = stored(4)
    assert isinstance(event.answer, Spans)
    assert event.answer.spans[0].label == "good"


def test_hostile_texts_run_nothing(browser: Browser, served: Begin) -> None:
    items = [
        item("a", HOSTILE, HOSTILE, prompt=HOSTILE), item("b", HOSTILE, extra={"ask": {"kind": "spans"}}),
        item("c", HOSTILE, extra={"ask": {"kind": "correction"}}, prompt=TALK),
        item("d", HOSTILE, extra={"ask": {"axes": [HOSTILE[:60]], "text": HOSTILE}}),
    ]  # fmt: skip
    page = served(items, title=HOSTILE, guidelines=HOSTILE)
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TRAP})
    browser.come_in(page, "<img src=x onerror=RAN()>")
    for n, key in enumerate(("1", "1", "", "3")):
        assert browser.driver.title != "RAN"
        if n == 2:
            browser.driver.execute_script(
                "const a = document.getElementById('correction'); a.value += arguments[0]; a.dispatchEvent(new Event('input'))",
                HOSTILE,
            )
        elif n == 1:
            browser.keys("ARROW_RIGHT")
            browser.keys("1")
        else:
            browser.keys(key)
        browser.driver.execute_script("document.getElementById('comment').value = arguments[0]", HOSTILE)
        browser.submit(page)
        if n < 3:
            browser.ready()
    browser.keys("e")
    browser.until(lambda: len(browser.all("#answered li")) == 4)
    assert browser.driver.title != "RAN"
    browser.come_in(page, "boss", "coordinator")
    browser.open(page.url + "/team")
    browser.until(lambda: len(browser.all("#people tr")) == 2)
    time.sleep(0.2)
    assert browser.driver.title != "RAN"
    assert "onerror" in browser.text("#people"), "the name is shown as what it is"


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_it_fits_every_width_and_axe_finds_nothing_serious(width: int, browser: Browser, served: Begin) -> None:
    long = "a long answer with `code` and words " * 12 + "x" * 300
    kinds: list[dict[str, Any]] = [
        {},
        {"kind": "ranking"},
        {"kind": "correction"},
        {"kind": "spans"},
        {"axes": ["helpful", "honest"], "kind": "rating"},
    ]
    page = served(
        [
            item(f"i{n}", long, *[long + " b"] * (n < 3), extra={"ask": ask}, prompt=long)  # the others are about one text
            for n, ask in enumerate(kinds)
        ],
        guidelines="# Be fair\n\n- read all",
    )

    def look(theme: str) -> None:
        browser.looks_right(theme, width)

    browser.come_in(page, width=width)
    for n, ask in enumerate(kinds):
        look("light" if n % 2 else "dark")
        if n == 0:
            look("light")
        if ask.get("kind") == "correction":
            browser.driver.execute_script(
                "const a = document.getElementById('correction'); a.value += '!'; a.dispatchEvent(new Event('input'))"
            )
        elif ask.get("kind") == "rating":
            browser.keys("2", "3")
        elif ask.get("kind") != "spans":
            browser.keys("1")
        browser.submit(page)
        browser.until(lambda n=n: browser.text("#progress").startswith(f"{n + 1} "))
        browser.ready()
    browser.keys("?")
    look("light")
    browser.come_in(page, "boss", "coordinator", width=width)
    browser.open(page.url + "/team", width=width)
    browser.until(lambda: browser.all("#people tr"))
    look("dark")


def test_an_answer_survives_a_server_that_is_gone(browser: Browser, served: Begin, tmp_path: Path) -> None:
    page = served([item("a", "x", "y"), item("b", "x", "y")])
    browser.come_in(page)
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.keys("2")
    browser.driver.execute_script(
        "document.getElementById('comment').value = 'why'; document.getElementById('comment').dispatchEvent(new Event('input'))"
    )
    gone = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", gone)
    browser.keys("ENTER")
    browser.until(lambda: "Not saved yet" in browser.text("#banner"))
    assert not list(page.store.events())
    browser.driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {**gone, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    )
    events = browser.until(lambda: found if len(found := list(page.store.events())) == 2 else None)
    assert [event.answer.kind for event in events] == ["comparison", "comment"]
    browser.until(lambda: browser.text("#banner") == "")
    browser.until(lambda: browser.text("#progress").startswith("1 "))


def test_an_answer_that_was_not_acknowledged_is_sent_again_after_a_reload(browser: Browser, served: Begin) -> None:
    page = served([item("a", "x", "y"), item("b", "x", "y")])
    browser.come_in(page)
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/answer"]})
    browser.keys("2", "ENTER")
    browser.until(lambda: "Not saved yet" in browser.text("#banner"))
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    browser.open(page.url + "/")  # before the next try
    browser.until(lambda: browser.text("#progress").startswith("1 "))
    [event] = page.store.events()
    assert event.answer == Comparison(better=event.shown[1])  # type: ignore[arg-type]


def test_the_next_question_is_there_before_the_answer_and_undo_comes_back_to_the_one_at_hand(
    browser: Browser, served: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = served([item(f"i{n}", "x", "y", prompt=f"question {n}") for n in range(5)])
    waiting, ask = list[int](), page.page.desk.next

    def asked(annotator: str, beside: Collection[str] = ()) -> dict[str, Any] | None:
        waiting.append(len(beside))
        return ask(annotator, beside)

    monkeypatch.setattr(page.page.desk, "next", asked)
    browser.come_in(page)
    browser.until(lambda: len(page.store.leased("ann")) == 2)
    for n in range(3):
        browser.until(lambda n=n: f"question {n}" in browser.text("#turns"))
        browser.keys("1", "ENTER")
        browser.until(lambda n=n: browser.text("#progress").startswith(f"{n + 1} "))
    browser.until(lambda: "question 3" in browser.text("#turns"))
    browser.until(lambda: waiting == [0, 1, 1, 1, 1])  # nothing is asked for but while another is answered
    browser.keys("u")
    browser.until(lambda: "question 2" in browser.text("#turns"))
    browser.keys("2", "ENTER")
    browser.until(lambda: "question 3" in browser.text("#turns"))
    browser.keys("1", "ENTER")
    browser.until(lambda: "question 4" in browser.text("#turns"))
    assert [event.item for event in page.store.events()] == ["i0", "i1", "i2", "i2", "i3"]


def test_drafts_undo_and_keys_of_ones_own(browser: Browser, served: Begin) -> None:
    page = served([item("a", "x", "y"), item("b", "x", "y")], question=Question(strength=False))
    browser.come_in(page)
    browser.keys("1", "m")
    browser.keys("half a thought")
    time.sleep(0.4)
    browser.open(page.url + "/")
    browser.ready()
    assert browser.one("#comment").get_property("value") == "half a thought"
    assert browser.all("#choices [aria-pressed=true]")
    browser.keys("?")
    assert "Choice 1" in browser.text("#key-list")
    assert "Leave a text" in browser.text("#key-list")
    rows = browser.all("#key-list button")
    rows[0].click()  # Submit
    browser.keys("j")
    browser.all("#keys-dialog .cancel")[0].click()
    browser.keys("j")
    browser.until(lambda: len(list(page.store.events())) == 2)
    browser.until(lambda: browser.text("#progress").startswith("1 "))
    assert browser.text("#progress") == "1 of 2 answered, 0 skipped, 0 minutes"
    assert (browser.text("#submit kbd"), browser.text("#earlier kbd"), browser.text("#comment-name kbd")) == ("j", "e", "m")
    browser.keys("u")
    browser.until(lambda: not browser.one("#editing").get_property("hidden"))
    assert browser.one("#comment").get_property("value") == "half a thought"
    browser.keys("4", "j")
    browser.until(lambda: len(list(page.store.events())) == 4)
    first, _, second, _ = page.store.events()
    assert second.supersedes == first.id
    assert second.answer == Comparison(better="both-bad")
    browser.until(lambda: browser.one("#editing").get_property("hidden"))


def test_it_speaks_chinese_and_both_languages_have_every_word(browser: Browser, served: Begin) -> None:
    from hookline_plugins.page.words import EN, WORDS, ZH, language_of

    assert EN.keys() == ZH.keys()
    page = served([item("a", "x", "y")])
    browser.come_in(page)
    browser.driver.execute_script(
        "const s = document.getElementById('language'); s.value = 'zh'; s.dispatchEvent(new Event('change'))"
    )
    browser.until(lambda: browser.text("#asked") == "哪个回答更好？")
    assert browser.one("html").get_attribute("lang") == "zh"
    browser.keys("1")
    browser.submit(page)
    browser.driver.delete_cookie("language")
    assert [language_of("", given) for given in ("zh-CN,zh;q=0.9", "fr,zh;q=0.5", "", "de")] == ["zh", "zh", "en", "en"]
    assert set(WORDS) == {"en", "zh"}
