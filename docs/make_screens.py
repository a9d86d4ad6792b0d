"""Writes docs/page/KIND-WIDTH.png, the annotators' page in Chromium: `python docs/make_screens.py`; half a minute."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests/page")]
from serving import SECRET, item, serve  # noqa: E402
from talking import Scripted  # noqa: E402

import hookline  # noqa: E402
from hookline import Comment, Comparison  # noqa: E402
from hookline_plugins.asking import Question  # noqa: E402
from hookline_plugins.page.access import People  # noqa: E402
from hookline_plugins.page.app import Page  # noqa: E402
from hookline_plugins.page.desk import Desk  # noqa: E402
from hookline_plugins.page.talks import Talks  # noqa: E402

PROMPT = ({"role": "user", "content": "How do I read a file line by line in Python?"},)
ONE = "Open the file and loop over it:\n\n```python\nwith open(path) as file:\n    for line in file:\n        print(line.rstrip())\n```"
TWO = "Use `file.readlines()`. It reads **all** lines at once into a list, which needs more memory for large files."
THREE = "You can read the file with pandas."
KINDS: dict[str, tuple[tuple[str, ...], dict[str, Any], tuple[str, ...]]] = {
    "comparison": ((ONE, TWO), {}, ("1",)),
    "ranking": ((ONE, TWO, THREE), {}, ("3", "ArrowUp")),
    "rating": ((ONE,), {"kind": "rating", "axes": ["helpful", "correct"]}, ("4",)),
    "correction": ((TWO,), {"kind": "correction"}, ()),
    "spans": ((TWO,), {"kind": "spans"}, ("ArrowRight", "1")),
    "thumb": ((THREE,), {"kind": "thumb"}, ("1",)),
    "deciding": ((ONE, TWO), {}, ("1",)),
    "chat": ((ONE, TWO), {}, ("2",)),
}
WHERE = {"deciding": "/team/decide", "chat": "/chat"}
PRESS = "for (const key of arguments[0]) document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}))"
EDIT = (
    "const a = document.getElementById('correction');"
    "if (a) { a.value = a.value.replace('all', 'all the'); a.dispatchEvent(new Event('input')); }"
)


def deciding(store: Any) -> None:
    """Three annotators disagree."""
    [one] = store.items()
    for who, better, words in (("ann", 0, "It runs as it is."), ("bob", 1, ""), ("cem", "tie", "")):
        store.append([one.event(Comparison(better=better), who, id=who)])
        if words:
            store.append([one.event(Comment(text=words), who, id=f"{who}/comment")])


def talking(desk: Any) -> Talks:
    """A conversation in which one turn was judged and another waits."""
    said = {1: (ONE, TWO), 3: (THREE, "Use `itertools.islice(file, 10)`: it stops after ten lines.")}

    def says(messages: Any, seed: int) -> str:
        one, two = said[len(messages)]
        return one if len(model.begun) % 2 else two

    model = Scripted("model", says)
    talks = Talks(desk.store, SECRET, [model], Question(), desk.media)
    name = "a" * 32
    talks.say("ann", {"session": name, "number": 0, "text": PROMPT[0]["content"]})
    talks.judge("ann", {"session": name, "number": 0, "id": "judged-1", "answer": {"better": 0}})
    talks.say("ann", {"session": name, "number": 1, "text": "And only the first ten lines?"})
    return talks


def main() -> int:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    (ROOT / "docs/page").mkdir(exist_ok=True)
    try:
        for kind, (texts, ask, keys) in KINDS.items():
            with tempfile.TemporaryDirectory() as folder:
                store = hookline.store(f"{folder}/a.jsonl")
                store.put([item("i", *texts, prompt=PROMPT, overlap=3, extra={"ask": ask} if ask else {})])
                if kind == "deciding":
                    deciding(store)
                desk, people = Desk(store, SECRET), People(Path(folder) / "people.json")
                talks = talking(desk) if kind == "chat" else None
                served = serve(lambda hosts, d=desk, p=people, t=talks: Page(d, p, hosts, talks=t))  # type: ignore[misc]
                driver.delete_all_cookies()
                driver.get(served.link("ann", "coordinator" if kind == "deciding" else "annotator"))
                driver.find_element("id", "come-in").click()
                while "/enter" in driver.current_url:
                    time.sleep(0.05)
                for width in (360, 768, 1440):
                    size = {"width": width, "height": 760, "deviceScaleFactor": 1, "mobile": False}
                    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                    driver.get(served.url + "/static/icon.svg")
                    driver.execute_script("localStorage.clear()")
                    driver.get(served.url + WHERE.get(kind, "/"))
                    time.sleep(0.6)
                    driver.execute_script(PRESS, list(keys))
                    driver.execute_script(EDIT)
                    time.sleep(0.3)
                    driver.save_screenshot(str(ROOT / f"docs/page/{kind}-{width}.png"))
                served.stop()
                store.close()
    finally:
        driver.quit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
