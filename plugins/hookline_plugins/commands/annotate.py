"""`hookline annotate`: simulated annotators, in a process of their own, that use the page as a browser does."""

from __future__ import annotations

import html
import math
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import httpx
from pydantic import Field

import hookline
from hookline import Argument, Command, ExperimentError, Out, ServiceError
from hookline_plugins.user_code import load

Score = Callable[[str, str], float]
LATE = (("/answer", 404), ("/answer", 409))
"""What the page says of an answer whose item others have now."""
LATER = (429, 502, 503, 504)
"""What a page says that may answer later, or a proxy whose page does not answer."""


class Annotate(Command):
    """Answer a page of `hookline collect` by simulated annotators, e.g. to try a loop before people come.

    LINK is what the page prints and what its team invites by: one annotator each. They judge by a function of yours, with noise, and
    make the mistakes that people make.
    """

    has_json = False

    class Config(hookline.Config):
        links: Annotated[tuple[str, ...], Argument("LINK…")] = Field(min_length=1)
        """Links of the page, one for each annotator."""
        by: str
        """`FILE.py:NAME`, a function of the prompt and an answer that returns how good the answer is."""
        noise: float = Field(0.1, ge=0)
        """Temperature of the choice, in units of the function: P(A) = σ((a − b) / noise). 0: never wrong."""
        fatigue: float = Field(0.0, ge=0)
        """By how much the noise grows with every hundred answers, as a share of it."""
        first: float = 0.0
        """How much the side that is shown first is preferred, in nats."""
        clicks: Literal["by the function", "at random", "always first"] = "by the function"
        """`at random` and `always first` judge nothing."""
        delay: float = Field(0.0, ge=0)
        """The longest time for an answer, in seconds; times are uniform below it."""
        no_show: float = Field(0.0, ge=0, le=1)
        """The probability that an annotator goes away with an item, which then waits for them."""
        away: float = Field(10.0, ge=0)
        """For how long they go away, in seconds."""
        skip: float = Field(0.0, ge=0, le=1)
        """The probability of a skip."""
        patience: float = Field(20.0, gt=0)
        """For how long they try again while the page does not answer, in seconds; then they leave."""
        in_flight: int = Field(1, ge=1, le=8)
        """The number of questions that each has at hand at once; `delay` is that of each question."""
        answers: int = Field(0, ge=0)
        """The number of questions that each answers or skips; 0: as long as the page is there."""
        seed: int = 0
        """The same seed gives the same mistakes."""

    def run(self, out: Out) -> int:
        score, failed = _function(self.config.by), list[str]()
        people = [
            _Simulated(link, number, self.config, score, failed.append) for number, link in enumerate(self.config.links)
        ]
        for one in people:
            one.start()
        for one in people:
            while one.is_alive():
                one.join(0.5)
        for number, one in enumerate(people, 1):
            refused = f", {one.refused} refused: {one.why}" if one.refused else ""
            out.text(f"annotator {number}: {one.done} answers, {one.skipped} skips, {one.shows} times away{refused}")
        if failed:
            raise ServiceError(failed[0], "start the page again, or make new links on its page Team")
        return 0


class _Simulated(threading.Thread):
    """One annotator, with a browser's session."""

    def __init__(self, link: str, number: int, config: Any, score: Score, tell: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        address, mark, self.token = link.partition("/enter#")
        if not mark:
            raise ExperimentError(f"{link} is not a link of the page", "give the whole link, with what is behind #")
        self.config, self.score, self.tell = config, score, tell
        self.random = random.Random(f"{config.seed} {number}")
        self.done = self.skipped = self.shows = self.refused = 0
        self.why = ""
        """Why the last answer was refused."""
        self.at_hand: list[_AtHand] = []
        self.client = httpx.Client(base_url=address, headers={"origin": "/".join(address.split("/")[:3])}, timeout=30)

    def run(self) -> None:
        try:
            self._work()
        except (httpx.HTTPError, LookupError, ValueError) as err:
            self.tell(f"after {self.done} answers: {type(err).__name__}: {err}")
        except Refused as err:
            self.tell(str(err))

    def _work(self) -> None:
        if self._ask("POST", "/enter", {"token": self.token}) is None:
            raise Refused(f"{self.client.base_url} did not answer for {self.config.patience:g} seconds")
        page = self.client.get("/hello").text
        self.client.headers["x-csrf"] = re.findall(r'name="csrf" content="([0-9a-f]+)"', page)[0]
        c = self.config
        there = True
        while there and (not c.answers or self.done + self.skipped < c.answers):
            most = min(c.in_flight, c.answers - self.done - self.skipped) if c.answers else c.in_flight
            there = self._take(most)
            if there and self.at_hand:
                first = min(self.at_hand, key=lambda one: one.due)
                time.sleep(max(first.due - time.time(), 0.0))
                self.at_hand.remove(first)
                there = first.answer is None or self._send(first)
            elif there:
                time.sleep(0.2)

    def _take(self, most: int) -> bool:
        """Have a number of questions at hand, or as many as there are; False if the page is gone."""
        c = self.config
        while len(self.at_hand) < most:
            beside = ",".join(one.handle for one in self.at_hand)
            asked = self._ask("GET", f"/question?beside={beside}")
            if asked is None:
                return False
            question = asked["question"]
            if question is None:
                return True
            now = time.time()
            if self.random.random() < c.no_show:
                self.shows += 1
                self.at_hand.append(_AtHand(question["handle"], now, now + c.away, None))
                continue
            due = now + self.random.random() * c.delay
            answer = {"skip": "tired"} if self.random.random() < c.skip else self._answer(question)
            self.at_hand.append(_AtHand(question["handle"], now, due, answer))
        return True

    def _send(self, one: _AtHand) -> bool:
        """Send an answer; False if the page is gone."""
        now = time.time()
        reply = self._ask("POST", "/answer", {
            "id": f"{self.random.getrandbits(128):032x}", "handle": one.handle, "answer": one.answer,
            "times": {"shown": one.shown, "begun": one.shown, "submitted": now, "active": now - one.shown},
        })  # fmt: skip
        if reply is None:
            return False
        if "error" in reply:
            self.refused, self.why = self.refused + 1, reply["error"]
        elif "skip" in (one.answer or {}):
            self.skipped += 1
        else:
            self.done += 1
        return True

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """The reply; the same request again while the page does not answer, then None."""
        until = time.monotonic() + self.config.patience
        while True:
            try:
                reply = self.client.request(method, path, **({} if body is None else {"json": body}))
            except httpx.TransportError:
                reply = None
            if reply is None or reply.status_code in LATER:
                if time.monotonic() > until:
                    return None
                time.sleep(0.2)
                continue
            if reply.status_code >= 400 and (path, reply.status_code) not in LATE:
                raise Refused(f"{self.client.base_url}: {reply.json().get('error', reply.status_code)}")
            return reply.json()

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """An answer about positions, as the page takes it."""
        c, kind = self.config, question["kind"]
        prompt = "\n".join(_text(turn["html"]) for turn in question["turns"])
        worth = [
            0.0 if c.clicks != "by the function" else self.score(prompt, _text(one["html"]))
            for one in question["candidates"]
        ]
        noise = c.noise * (1 + c.fatigue * self.done / 100)
        heard = [value + noise * self._gumbel() for value in worth] if noise else worth
        if c.clicks == "at random":
            heard = [self.random.random() for _ in worth]
        if c.clicks == "always first":
            heard = [-float(position) for position in range(len(worth))]
        elif noise:
            heard[0] += noise * c.first
        best = sorted(range(len(heard)), key=lambda position: -heard[position])
        if kind == "comparison":
            strength = {"strength": 2} if question["strength"] else {}
            return {"better": best[0], **strength}
        if kind == "ranking":
            return {"order": [[position] for position in best]}
        if kind == "rating":
            low, high, step = question["scale"]
            share = 1 / (1 + math.exp(-heard[0]))
            mark = low + share * (high - low)
            mark = low + round((mark - low) / step) * step if step else mark
            return {"marks": dict.fromkeys(question["axes"], mark)}
        if kind == "thumb":
            return {"up": heard[0] > 0}
        if kind == "spans":
            return {"spans": []}
        return {"text": question["candidates"][0]["text"].rstrip() + "."}

    def _gumbel(self) -> float:
        return -math.log(-math.log(min(max(self.random.random(), 1e-12), 1 - 1e-12)))


@dataclass(frozen=True)
class _AtHand:
    """A question that an annotator has."""

    handle: str
    shown: float
    due: float
    """When the answer is sent, in seconds since 1970."""
    answer: dict[str, Any] | None
    """None for one with which the annotator has gone away."""


class Refused(Exception):
    """The page refused an annotator."""


def _text(made: str) -> str:
    """What a person reads of the page's HTML."""
    return html.unescape(re.sub(r"<[^>]+>", "", made)).strip()


def _function(name: str) -> Score:
    """The function `FILE.py:NAME`."""
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        raise ExperimentError(f"--by {name} names no function of a file", "write FILE.py:NAME")
    return load(file, attribute)
