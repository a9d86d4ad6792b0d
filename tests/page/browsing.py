"""The page in a real Chromium, as a person uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import Served

from hookline import Event
from needs import needs_package, needs_program

NEEDS = [
    needs_program("chromium", "apt-get install chromium"),
    needs_program("chromedriver", "apt-get install chromium-driver"),
    needs_package("selenium", "pip install selenium"),
    needs_package("axe_core_python", "pip install axe-core-python"),
]
TRAP = "window.alert = window.confirm = window.prompt = () => { document.title = 'RAN'; }; window.RAN = () => alert();"
HOSTILE = (
    "<script>RAN()</script><img src=x onerror=RAN()><svg onload=RAN()></svg> [x](javascript:RAN()) ![x](http://127.0.0.1:9/x.png) "
    "</textarea></script><script>RAN()</script> {{7*7}} \u202e \x00 ```\n<iframe srcdoc='<script>parent.RAN()</script>'>\n```"
)


class Browser:
    """Chromium, and what a person does with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, width: int = 1440, height: int = 900) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get("about:blank")
        self.driver.get(address)

    def come_in(self, page: Served, name: str = "ann", role: str = "annotator", **size: int) -> None:
        self.open(page.url + "/hello")
        self.driver.delete_all_cookies()
        self.driver.get_log("browser")
        self.driver.execute_script("localStorage.clear()")
        self.open(page.link(name, role), **size)
        self.one("#come-in").click()
        self.until(lambda: "/enter" not in self.driver.current_url)
        if role == "annotator":
            self.ready()

    def ready(self) -> None:
        """Wait for a question, or for there being none."""
        self.until(lambda: not self.text("#asked").startswith(("Loading", "正在")))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def text(self, selector: str) -> str:
        return str(self.driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def keys(self, *pressed: str, shift: bool = False) -> None:
        from selenium.webdriver import ActionChains, Keys

        chain = ActionChains(self.driver)
        for key in pressed:
            name = getattr(Keys, key, key)
            chain = chain.key_down(Keys.SHIFT).send_keys(name).key_up(Keys.SHIFT) if shift else chain.send_keys(name)
        chain.perform()

    def until(self, there: Callable[[], Any], seconds: float = 10) -> Any:
        end = time.monotonic() + seconds
        while True:
            try:
                if found := there():
                    return found
            except Exception:
                if time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                raise AssertionError(f"not there after {seconds} s: {self.text('body')[:500]}")
            time.sleep(0.02)

    def submit(self, page: Served) -> Event:
        """Press the key that submits, and return what was stored."""
        before, shown = len(list(page.store.events())), self.text("#progress")
        self.keys("ENTER")
        events = self.until(lambda: found if len(found := list(page.store.events())) > before else None)
        self.until(lambda: self.text("#saved") in ("Saved", "已保存") and self.text("#progress") != shown)
        newest: Event = events[before]
        return newest

    def looks_right(self, theme: str, width: int) -> None:
        """Nothing reaches beyond the window, and axe finds nothing serious."""
        import axe_core_python as axe_package

        axe = (Path(axe_package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
        still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
        self.driver.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        wide = self.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, "nothing reaches beyond the window"
        self.driver.execute_script(axe)
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document).then((r) => done(JSON.stringify(r.violations)))"
        )
        serious = [
            (one["id"], [node["html"][:120] for node in one["nodes"]])
            for one in json.loads(found)
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
