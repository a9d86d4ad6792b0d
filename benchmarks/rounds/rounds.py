"""People in the loop over three rounds, with every part as a process of its own, and what came of it: docs/rounds.md.

    make rounds                       seeds 2 and 3; about a quarter of an hour each on two idle cores
    make rounds ARGS='--seeds 1'      another seed
    make rounds ARGS='--small'        few answers and steps of an untrained model: it checks the mechanism, and writes no page

For each seed: the first two phases of the demo; then `hookline run`, `hookline collect`, two simulated annotators with eight
answers in flight each, and a Chromium whose person uses the keyboard alone. The trainer and the page's server are killed once each
with SIGKILL, at random moments, and started again. `hookline reproduce` then repeats the run from its journal. What is finished under
runs/rounds is not repeated.
"""

from __future__ import annotations

import argparse
import functools
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IN_FLIGHT = 8
BROWSER = 20
MARK = "<!-- measured -->\n"
ANNOTATORS = ("one", "two")
HABITS = ("--noise", "0.1", "--no-show", "0.1", "--away", "2", "--delay", "2", "--patience", "300")
SMALL = (
    "phases.ask.feedback.answers=44", "phases.ask.steps=1", "phases.reward-model.steps=3", "phases.rl.steps=2", "phases.rl.rollout.rows=4",
    "phases.rl.evaluate.heldout.rows=40", "phases.heldout.steps=1",
)  # fmt: skip

SMALL_START = (
    "phases.pretrain.steps=1", "phases.pretrain.rollout.rows=2", "phases.pretrain.evaluate=[]", "phases.sft.steps=1",
    "phases.sft.rollout.rows=2", "phases.sft.evaluate=[]",
)  # fmt: skip


class Process:
    """A command of hookline whose output goes to a file; it is started again after a kill."""

    def __init__(self, folder: Path, name: str, *words: str) -> None:
        self.folder, self.name, self.words = folder, name, words
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


class Seed:
    """One seed: its processes, the kills, and the answers of each round."""

    def __init__(self, folder: Path, seed: int, changes: Sequence[str], answers: int, rows: int) -> None:
        """answers: of a round. rows: what the whole run commits."""
        self.folder, self.seed, self.changes, self.answers, self.rows = folder, seed, changes, answers, rows
        self.random = random.Random(seed)
        self.begun: set[str] = set()
        self.annotators: list[Process] = []
        self.browsers: list[threading.Thread] = []
        self.failed: list[str] = []
        self.kills: dict[str, Any] = {}

    def go(self) -> None:
        shutil.copy(HERE / "rounds.yaml", self.folder)
        shutil.copy(HERE / "gold.py", self.folder)
        self.port = free_port()
        changes = (f"seed={self.seed}", *self.changes)
        self.page = Process(self.folder, "page", "collect", "rounds.yaml", "--port", str(self.port))
        self.trainer = Process(self.folder, "trainer", "run", "rounds.yaml", *changes, "--out", "run")
        self.page.start()
        wait_for(lambda: "/enter#" in self.page.said(), 120, "the page")
        began = time.time()
        self.trainer.start()
        try:
            self._watch(began)
        finally:
            for process in (self.trainer, self.page, *self.annotators):
                if process.ended() is None:
                    process.kill()
        for browser in self.browsers:
            browser.join(10)
        about = {"seconds": time.time() - began, "kills": self.kills, "failed": self.failed}
        (self.folder / "killed.json").write_text(json.dumps(about, indent=1))

    def _watch(self, began: float) -> None:
        """Start people when the run waits for them, and kill once each, until the run has ended."""
        trainer_dies = self._moment("trainer")
        page_dies = self._moment("page")
        while (code := self.trainer.ended()) is None:
            for phase in re.findall(r"phase '(ask@\d)' waits for", self.trainer.said()):
                if phase not in self.begun:
                    self.begun.add(phase)
                    self._people_come(phase)
            for name, process, dies in (("trainer", self.trainer, trainer_dies), ("page", self.page, page_dies)):
                if name not in self.kills and dies():
                    where = self._where()
                    process.kill()
                    self.kills[name] = {"at": where, "seconds": round(time.time() - began, 1)}
                    process.start()
            time.sleep(0.1)
        if code:
            raise SystemExit(f"the run ended with {code}:\n{self.trainer.said()[-2000:]}")

    def _moment(self, name: str) -> Callable[[], bool]:
        """Whether a random moment has come: for the page, a share of all answers; for the trainer, a share of all steps."""
        share, delay = self.random.uniform(0.05, 0.9), self.random.random() * 3
        until: list[float] = []

        def due() -> bool:
            done, all_of_it = (self._answered(), 3 * self.answers) if name == "page" else (len(self._rows()), self.rows)
            if done >= share * all_of_it and not until:
                until.append(time.time() + delay)
            return bool(until) and time.time() >= until[0]

        return due

    def _rows(self) -> list[str]:
        file = self.folder / "run" / "metrics.jsonl"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def _answered(self) -> int:
        import hookline

        with hookline.store(f"sqlite:///{self.folder / 'answers.db'}") as store:
            return store.counts().events

    def _where(self) -> str:
        rows = self._rows()
        last = json.loads(rows[-1]) if rows else {"phase": "the start", "step": 0}
        return f"after step {last['step']} of {last['phase']}, {self._answered()} answers"

    def _people_come(self, phase: str) -> None:
        from hookline_plugins.page.access import People

        people = People(self.folder / "answers.db.people.json")
        address = f"http://127.0.0.1:{self.port}"
        links = [
            f"{address}/enter#{people.invite(f'{who}-{n}', 'annotator')}"
            for who in ANNOTATORS
            for n in range(IN_FLIGHT)
        ]
        each, rest = divmod(self.answers - BROWSER, len(links))
        # each link gives a whole number of answers, so those with one more come as a process of their own
        for number, (some, count) in enumerate(((links[:rest], each + 1), (links[rest:], each))):
            if some and count:
                seed = str(1000 * self.seed + 10 * int(phase[-1]) + number)
                one = Process(
                    self.folder, f"annotators-{phase}-{number}", "annotate", *some, "--by", "gold.py:gold", "--answers", str(count),
                    "--seed", seed, *HABITS,
                )  # fmt: skip
                one.start()
                self.annotators.append(one)
        come = f"{address}/enter#{people.invite('keyboard', 'annotator')}"
        browser = threading.Thread(target=self._browser, args=(come, phase), daemon=True)
        browser.start()
        self.browsers.append(browser)

    def _browser(self, link: str, phase: str) -> None:
        def more() -> bool:
            """Whether the phase still waits when all others have gone: an item of an earlier round may have been answered, too."""
            while f"{phase} done" not in self.trainer.said():
                if all(one.ended() is not None for one in self.annotators):
                    time.sleep(3)
                    return f"{phase} done" not in self.trainer.said()
                time.sleep(0.5)
            return False

        try:
            by_keyboard(link, BROWSER, more)
        except Exception as err:  # reported with the figures: the run waits for these answers
            self.failed.append(f"{type(err).__name__}: {err}"[:500])


def by_keyboard(link: str, answers: int, more: Callable[[], bool]) -> None:
    """A person in Chromium who judges by the gold reward, and touches nothing but keys. more: whether to go on after `answers`."""
    sys.path[:0] = [str(HERE)] if str(HERE) not in sys.path else []
    from gold import gold
    from selenium import webdriver
    from selenium.webdriver import ActionChains, Keys

    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--lang=en",
    ):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(link)
        wait_for(lambda: driver.find_elements("css selector", "#come-in"), 60, "the way in")
        driver.execute_script("document.querySelector('#come-in').focus()")
        ActionChains(driver).send_keys(Keys.ENTER).perform()
        wait_for(lambda: "/enter" not in driver.current_url, 60, "the page")
        read = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)"
        done = 0
        while done < answers or more():
            wait_for(lambda: len(driver.execute_script(read, "#candidates .body")) == 2, 120, "a question")
            prompt = "\n".join(driver.execute_script(read, "#turns .turn div"))
            shown = driver.execute_script(read, "#candidates .body")
            before = driver.execute_script("return document.querySelector('#progress').innerText")
            one, two = (gold(prompt, text.strip()) for text in shown)
            ActionChains(driver).send_keys("1" if one >= two else "2").send_keys(Keys.ENTER).perform()
            wait_for(functools.partial(progressed, driver, before), 60, "the answer to be saved")
            done += 1
    finally:
        driver.quit()


def progressed(driver: Any, before: str) -> bool:
    return bool(driver.execute_script("return document.querySelector('#progress').innerText") != before)


def wait_for(there: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def figures(folder: Path) -> dict[str, Any]:
    """What a finished seed shows."""
    import hookline
    from hookline.study.judging.scoring import score_candidates
    from hookline_plugins.report import ages

    run = hookline.Run.read(folder / "run")
    events = [hookline.Event.read(record, "a held-out comparison") for record in run.collected("heldout").records]
    pairs = [event for event in events if getattr(event.answer, "better", None) in (0, 1)][:1000]
    groups = {prompt: n for n, prompt in enumerate(dict.fromkeys(str(event.prompt) for event in pairs))}
    right: dict[int, list[float]] = {}
    count = [0.0] * len(groups)
    for number in (1, 3):
        scored = score_candidates(folder / "run" / "phases" / f"reward-model@{number}", pairs).reward
        right[number] = [0.0] * len(groups)
        for event in pairs:
            gap = scored[event.item, 0] - scored[event.item, 1]
            won = gap if event.answer.better == 0 else -gap  # type: ignore[union-attr]
            right[number][groups[str(event.prompt)]] += 1.0 if won > 0 else 0.5 if won == 0 else 0.0
    for event in pairs:
        count[groups[str(event.prompt)]] += 1
    gold = {number: last(run, f"rl@{number}") for number in (1, 2, 3)}
    return {
        "pairs": len(pairs),
        "accuracy": {number: vars(hookline.interval(right[number], count)) for number in (1, 3)},
        "accuracy_gain": vars(hookline.interval(right[3], count, minus=(right[1], count))),
        "gold": {number: vars(hookline.interval(*sums(samples))) for number, samples in gold.items()},
        "gold_gain": vars(hookline.interval(*sums(gold[3]), minus=sums(gold[1]))),
        "start": vars(hookline.interval(*sums(first(run, "rl@1")))),
        "ages": {f"{one['phase']} {one['does']}": one for one in ages.gather(run, run.rows())},
        "processor": run.about["processor"],
        "reproduced": (folder / "reproduced.txt").read_text().strip().splitlines()[-1].strip(),
        **json.loads((folder / "killed.json").read_text()),
    }


def last(run: Any, phase: str) -> list[Any]:
    return list([entry for entry in run.evaluations() if entry["phase"] == phase][-1]["samples"])


def first(run: Any, phase: str) -> list[Any]:
    return list(next(entry for entry in run.evaluations() if entry["phase"] == phase)["samples"])


def sums(samples: Sequence[Any]) -> tuple[list[float], list[float]]:
    """Per prompt: the sum of gold rewards, and the number of rows."""
    order = {prompt: n for n, prompt in enumerate(sorted({sample["prompt"] for sample in samples}))}
    above, below = [0.0] * len(order), [0.0] * len(order)
    for sample in samples:
        above[order[sample["prompt"]]] += sample["terms"]["gold"]
        below[order[sample["prompt"]]] += 1
    return above, below


def begin(folder: Path, seed: int, start: str, changes: Sequence[str]) -> None:
    """The model that the rounds begin with: the demo's first two phases."""
    folder.mkdir(parents=True, exist_ok=True)
    if start and not (folder / "start").exists():
        (folder / "start").symlink_to(Path(start).resolve())
    if not (folder / "start" / "phases" / "sft" / "manifest.json").exists():
        demo = (ROOT / "examples" / "keyword-phrases.yaml").read_text(encoding="utf-8")
        until_sft, _, _ = demo.partition("  - name: comparisons")
        (folder / "start.yaml").write_text(f"{until_sft}\ntrackers: [console]\n", encoding="utf-8")
        with (folder / "start.log").open("ab") as log:
            command = [
                sys.executable,
                "-m",
                "hookline",
                "run",
                "start.yaml",
                f"seed={seed}",
                *changes,
                "--out",
                "start",
            ]
            subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=log)


def page(found: dict[int, dict[str, Any]]) -> str:
    """The tables of docs/rounds.md."""

    def shown(one: dict[str, float], plus: str = "") -> str:
        return f"{one['value']:{plus}.3f} [{one['low']:{plus}.3f}, {one['high']:{plus}.3f}]"

    heads = ("seed", "reward model of round 1", "of round 3", "difference")
    rounds = ("gold before", "after round 1", "after round 2", "after round 3", "round 3 − round 1")
    lines = [f"| {' | '.join((*heads, *rounds))} |"]
    lines.append("|" + "---|" * 9)
    for seed, one in found.items():
        accuracy, gold = one["accuracy"], one["gold"]
        cells = [shown(accuracy[1]), shown(accuracy[3]), shown(one["accuracy_gain"], "+"), shown(one["start"])]
        cells += [*(shown(gold[number]) for number in (1, 2, 3)), shown(one["gold_gain"], "+")]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    lines += [
        "",
        "| seed | minutes | trainer killed | page killed | repeated from the journal |",
        "|---|---|---|---|---|",
    ]
    for seed, one in found.items():
        killed = [one["kills"].get(name, {}).get("at", "not") for name in ("trainer", "page")]
        lines.append(f"| {seed} | {one['seconds'] / 60:.0f} | {' | '.join(killed)} | {one['reproduced']} |")
    lines += [
        "",
        "| seed | phase | judgements | mean age | oldest | of the newest weights |",
        "|---|---|---|---|---|---|",
    ]
    for seed, one in found.items():
        for name, age in one["ages"].items():
            if "learned from" in name:
                lines.append(
                    f"| {seed} | {age['phase']} | {age['judgements']} | {age['age']:.0f} | {age['oldest']} | {age['new']:.0%} |"
                )
    return "\n".join(lines) + "\n"


def draw(found: dict[int, dict[str, Any]], file: Path) -> None:
    """Gold reward by round, a line for each seed, with the intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "rounds"
    from matplotlib import pyplot

    made, axes = pyplot.subplots(figsize=(6, 3.2))
    for place, (seed, one) in enumerate(found.items()):
        points = [one["start"], *(one["gold"][number] for number in (1, 2, 3))]
        values = [point["value"] for point in points]
        ends = [
            [point["value"] - point["low"] for point in points],
            [point["high"] - point["value"] for point in points],
        ]
        axes.errorbar(
            [number + 0.04 * place for number in range(4)], values, ends, marker="o", capsize=3, label=f"seed {seed}"
        )
    axes.set_xticks(range(4), ["before", "round 1", "round 2", "round 3"])
    axes.set_ylabel("gold reward, held-out prompts")
    axes.legend(frameon=False)
    made.tight_layout()
    made.savefig(file, metadata={"Date": None})


def write(found: dict[int, dict[str, Any]]) -> None:
    """docs/rounds.md from its mark on, and its figure."""
    file = ROOT / "docs" / "rounds.md"
    before, _, _ = file.read_text(encoding="utf-8").partition(MARK)
    processor = next(one["processor"] for one in found.values())
    about = f"Measured on {processor}, two threads.\n"
    figure = "![Gold reward before, and after each round, for each seed](rounds.svg)\n"
    file.write_text(f"{before}{MARK}\n{about}\n{page(found)}\n{figure}", encoding="utf-8")
    draw(found, ROOT / "docs" / "rounds.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--small", action="store_true")
    parser.add_argument(
        "--start", default="", help="a finished run of the demo with this seed, instead of its first two phases"
    )
    parser.add_argument("--out", default=str(ROOT / "runs" / "rounds"))
    asked = parser.parse_args()
    found = {}
    for seed in asked.seeds:
        folder = Path(asked.out) / str(seed)
        begin(folder, seed, asked.start, SMALL_START if asked.small else ())
        if not (folder / "killed.json").exists():
            Seed(folder, seed, *((SMALL, 44, 22) if asked.small else ((), 620, 194))).go()
        repeat(folder)
        found[seed] = figures(folder)
        print(page({seed: found[seed]}), flush=True)
    if not asked.small:
        write(found)


def repeat(folder: Path) -> None:
    """Repeat a run from its journal, and keep what is said of it."""
    if not (folder / "reproduced.txt").exists():
        done = subprocess.run(
            [sys.executable, "-m", "hookline", "reproduce", "run"], cwd=folder, capture_output=True, text=True
        )
        (folder / "reproduced.txt").write_text(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
