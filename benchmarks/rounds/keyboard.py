"""A person in Chromium who judges by a function, and touches nothing but keys."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable
from typing import Any

ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--lang=en",
)  # fmt: skip


def by_keyboard(link: str, score: Callable[[str, str], float], answers: int, more: Callable[[], bool]) -> None:
    """Come in by a link and answer so many comparisons. score: of a prompt and an answer. more: whether to go on after that."""
    from selenium import webdriver
    from selenium.webdriver import ActionChains, Keys

    options = webdriver.ChromeOptions()
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        wait_for(lambda: _came_in(driver, link), 600, "the page")
        read = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)"
        done = 0
        while done < answers or more():
            wait_for(lambda: len(driver.execute_script(read, "#candidates .body")) == 2, 600, "a question")
            prompt = "\n".join(driver.execute_script(read, "#turns .turn div"))
            one, two = (score(prompt, text.strip()) for text in driver.execute_script(read, "#candidates .body"))
            before = progress(driver)
            ActionChains(driver).send_keys("1" if one >= two else "2").send_keys(Keys.ENTER).perform()
            wait_for(functools.partial(_progressed, driver, before), 300, "the answer to be saved")
            done += 1
    finally:
        driver.quit()


def _came_in(driver: Any, link: str) -> bool:
    """Open the link and press Enter; False where the page does not answer just now, so that one tries again."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver import ActionChains, Keys

    try:
        driver.get("about:blank")
        driver.get(link)
        wait_for(lambda: driver.find_elements("css selector", "#come-in"), 60, "the way in")
        driver.execute_script("document.querySelector('#come-in').focus()")
        ActionChains(driver).send_keys(Keys.ENTER).perform()
        wait_for(lambda: "/enter" not in driver.current_url, 60, "the first question")
    except (WebDriverException, TimeoutError):
        return False
    return True


def progress(driver: Any) -> str:
    """What the page says of how many answers this person gave."""
    return str(driver.execute_script("return document.querySelector('#progress').innerText"))


def _progressed(driver: Any, before: str) -> bool:
    return progress(driver) != before


def wait_for(there: Callable[[], Any], seconds: float, what: str) -> None:
    """Poll until something is there. Raises TimeoutError with what was waited for."""
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)
