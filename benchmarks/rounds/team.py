"""One seed of the rounds: the trainer, the page, the annotators and a browser, each a process of its own; and the kills."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gold
from keyboard import by_keyboard, wait_for

HERE = Path(__file__).resolve().parent
ROUNDS = 3
ANNOTATORS = ("one", "two")
HABITS = ("--noise", "0.05", "--no-show", "0.1", "--away", "2", "--patience", "1800")


@dataclass(frozen=True)
class Work:
    """What people do in a round."""

    annotators: int = 600
    """Answers of the simulated annotators."""
    browser: int = 20
    """Answers of the person in the browser."""
    in_flight: int = 8
    """Answers that each annotator has in flight."""
    delay: float = 2.0
    """The longest time for an answer, in seconds."""
    by: str = "gold"
    """The function of gold.py by which all of them judge."""

    @property
    def answers(self) -> int:
        return self.annotators + self.browser


class Process:
    """A command of hookline whose output goes to a file; it can be started again after a kill."""

    def __init__(self, folder: Path, name: str, *words: str) -> None:
        self.folder, self.words = folder, words
        self.log = folder / f"{name}.log"
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "hookline", *self.words], cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is closed."""
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def ended(self) -> int | None:
        return None if self.child is None else self.child.poll()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


class Team:
    """Everybody who takes part in one run of the rounds."""

    def __init__(self, folder: Path, seed: int, work: Work, changes: Sequence[str] = ()) -> None:
        self.folder, self.seed, self.work = folder, seed, work
        self.random = random.Random(seed)
        self.port = free_port()
        self.page = Process(folder, "page", "collect", "rounds.yaml", "--port", str(self.port))
        self.trainer = Process(folder, "trainer", "run", "rounds.yaml", f"seed={seed}", *changes, "--out", "run")
        self.annotators: list[Process] = []
        self.browsers: list[threading.Thread] = []
        self.begun: set[str] = set()
        self.failed: list[str] = []
        self.kills: dict[str, Any] = {}

    def go(self) -> None:
        """Go through all rounds, and write what was killed where into killed.json."""
        for name in ("rounds.yaml", "gold.py"):
            shutil.copy(HERE / name, self.folder)
        began = time.time()
        try:
            self.page.start()
            wait_for(lambda: "/enter#" in self.page.said(), 600, "the page")
            self.trainer.start()
            self._watch(began)
        finally:
            for process in (self.trainer, self.page, *self.annotators):
                if process.ended() is None and process.child is not None:
                    process.kill()
        for browser in self.browsers:
            browser.join(10)
        about = {"seconds": time.time() - began, "kills": self.kills}
        (self.folder / "killed.json").write_text(json.dumps(about, indent=1))

    def _watch(self, began: float) -> None:
        """Start people when the run waits for them, and kill once each, until the run has ended."""
        due = {"trainer": self._moment(self._steps), "page": self._moment(self._answered)}
        while (code := self.trainer.ended()) is None:
            for phase in re.findall(r"phase '(ask@\d)' waits for", self.trainer.said()):
                if phase not in self.begun:
                    self.begun.add(phase)
                    self._people_come(phase)
            for name, process in (("trainer", self.trainer), ("page", self.page)):
                if name not in self.kills and due[name]():
                    where = self._where()
                    process.kill()
                    self.kills[name] = {"at": where, "seconds": round(time.time() - began, 1)}
                    process.start()
            if self.failed:
                raise SystemExit(f"the browser ended with {self.failed[0]}")
            time.sleep(0.1)
        if code:
            raise SystemExit(f"the run ended with {code}:\n{self.trainer.said()[-2000:]}")

    def _moment(self, done: Callable[[], float]) -> Callable[[], bool]:
        """Whether a random moment has come: a share of what is done in all, and up to three seconds more."""
        share, delay = self.random.uniform(0.05, 0.9), self.random.random() * 3
        until: list[float] = []

        def due() -> bool:
            if done() >= share and not until:
                until.append(time.time() + delay)
            return bool(until) and time.time() >= until[0]

        return due

    def _steps(self) -> float:
        """The share of all steps of the run that are in its file of figures."""
        rows, file = self._rows(), self.folder / "run" / "experiment.json"
        if not rows or not file.exists():
            return 0.0
        return len(rows) / sum(phase["steps"] + bool(phase["evaluate"]) for phase in json.loads(file.read_text())["phases"])

    def _rows(self) -> list[str]:
        file = self.folder / "run" / "metrics.jsonl"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def _answered(self) -> float:
        return self._events() / (ROUNDS * self.work.answers)

    def _events(self) -> int:
        import hookline

        with hookline.store(f"sqlite:///{self.folder / 'answers.db'}") as store:
            return store.counts().events

    def _where(self) -> str:
        rows = self._rows()
        last = json.loads(rows[-1]) if rows else {"phase": "the start", "step": 0}
        return f"after step {last['step']} of {last['phase']}, {self._events()} answers"

    def _people_come(self, phase: str) -> None:
        seed = 10 * self.seed + int(phase[-1])
        one = Process(
            self.folder, f"annotators-{phase}", "annotate", *(self._link(who) for who in ANNOTATORS), "--by", f"gold.py:{self.work.by}",
            "--answers", str(self.work.annotators // len(ANNOTATORS)), "--in-flight", str(self.work.in_flight),
            "--delay", str(self.work.delay), "--seed", str(seed), *HABITS,
        )  # fmt: skip
        one.start()
        self.annotators.append(one)
        browser = threading.Thread(target=self._browse, args=(self._link("keyboard"), phase), daemon=True)
        browser.start()
        self.browsers.append(browser)

    def _link(self, name: str) -> str:
        from hookline_plugins.page.access import People

        people = People(self.folder / "answers.db.people.json")
        return f"http://127.0.0.1:{self.port}/enter#{people.invite(name, 'annotator')}"

    def _browse(self, link: str, phase: str) -> None:
        def over() -> bool:
            return f"{phase} done" in self.trainer.said() or self.trainer.ended() is not None

        def more() -> bool:
            """Whether the phase still waits when all others have gone: some may have answered an item of an earlier round."""
            while not over():
                if all(one.ended() is not None for one in self.annotators):
                    time.sleep(3)
                    return not over()
                time.sleep(0.5)
            return False

        try:
            by_keyboard(link, getattr(gold, self.work.by), self.work.browser, more)
        except Exception as err:  # the run would wait for these answers
            if not over():
                self.failed.append(f"{type(err).__name__}: {err}"[:500])


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])
