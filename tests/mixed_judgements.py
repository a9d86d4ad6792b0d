"""Judgements of five annotators, two of them bad, in four kinds of answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from hookline import Candidate, Comparison, Event, Ranking, Rating, Thumb

WORDS = ("terrible", "poor", "good", "wonderful")
"""Texts say roughly what an answer is worth."""


def mixed(seed: int = 1, items: int = 90) -> list[Event]:
    """Comparisons, rankings, marks and thumbs of five annotators, of whom `click` guesses and `left` takes what is shown first."""
    rng = np.random.default_rng(seed)
    events = []
    for i in range(items):
        worth = rng.normal(0, 2, 3)
        texts = tuple(Candidate(text=f"{WORDS[int(np.digitize(x, (-1.5, 0, 1.5)))]} {k}") for k, x in enumerate(worth))
        for who in ("ann", "bob", "cem", "click", "left"):
            shown = tuple(map(int, rng.permutation(3)))
            noisy = rng.normal(size=3) if who == "click" else worth + rng.gumbel(size=3)
            base: dict[str, Any] = {"prompt": f"question {i}", "annotator": who}
            if i % 4 == 0:
                two = tuple(k for k in shown if k < 2)
                better = two[0] if who == "left" else int(noisy[1] > noisy[0])
                events.append(Event(**base, candidates=texts[:2], shown=two, answer=Comparison(better=better)))
            elif i % 4 == 1:
                order = shown if who == "left" else tuple(map(int, np.argsort(-noisy)))
                answer = Ranking(order=tuple((k,) for k in order))
                events.append(Event(**base, candidates=texts, shown=shown, answer=answer))
            elif i % 4 == 2:
                for k in range(2):
                    mark = float(rng.integers(1, 6) if who == "left" else np.clip(round(3 + noisy[k]), 1, 5))
                    events.append(Event(**base, candidates=texts[:2], answer=Rating(of=k, marks={"overall": mark})))
            else:
                up = bool(noisy[0] > 0) if who != "left" else bool(rng.integers(2))
                events.append(Event(**base, candidates=texts[:1], answer=Thumb(up=up)))
    return events
