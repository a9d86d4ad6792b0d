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

import hookline  # noqa: E402
from hookline_plugins.page.access import People  # noqa: E402
from hookline_plugins.page.app import Page  # noqa: E402
from hookline_plugins.page.desk import Desk  # noqa: E402

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
}
PRESS = "for (const key of arguments[0]) document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}))"
EDIT = (
    "const a = document.getElementById('correction');"
    "if (a) { a.value = a.value.replace('all', 'all the'); a.dispatchEvent(new Event('input')); }"
)


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
                store.put([item("i", *texts, prompt=PROMPT, extra={"ask": ask} if ask else {})])
                desk, people = Desk(store, SECRET), People(Path(folder) / "people.json")
                served = serve(lambda hosts, desk=desk, people=people: Page(desk, people, hosts))  # type: ignore[misc]
                driver.delete_all_cookies()
                driver.get(served.link("ann"))
                driver.find_element("id", "come-in").click()
                while "/enter" in driver.current_url:
                    time.sleep(0.05)
                for width in (360, 768, 1440):
                    size = {"width": width, "height": 760, "deviceScaleFactor": 1, "mobile": False}
                    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                    driver.get(served.url + "/static/icon.svg")
                    driver.execute_script("localStorage.clear()")
                    driver.get(served.url + "/")
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
