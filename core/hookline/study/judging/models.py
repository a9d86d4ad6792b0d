"""Which model is better, from judgements of answers whose producers are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from hookline.contract.feedback import Event, Producer
from hookline.errors import DataError
from hookline.study.judging.answers import Pair, table_of
from hookline.study.judging.ratings import Ratings, ratings

__all__ = ["model_ratings"]


def model_ratings(events: Iterable[Event]) -> Ratings:
    """Strengths of the models that wrote the candidates, with intervals over conversations, or over items.

    events: of any kinds; comparisons, rankings and marks of several candidates of an item count, those in which both are bad do not.
    Where somebody decided, the decision is the only answer. Models are called by their `by.name`, and by their weights, too, where
    one name has several. Raises DataError if nothing compares two models, or if nothing connects them.
    """
    pairs = table_of(events, final=True).pairs
    weights: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for place in (pair.one, pair.two):
            if by := _by(pair, place):
                weights[by.name].add(by.weights)

    def called(by: Producer) -> str:
        return f"{by.name} {by.weights}".strip() if len(weights[by.name]) > 1 else by.name

    met = []
    for pair in pairs:
        one, two = _by(pair, pair.one), _by(pair, pair.two)
        if one and two and called(one) != called(two):
            score = 0.5 if pair.better is None else float(pair.better == pair.one)
            met.append((called(one), called(two), score, _cluster(pair.event)))
    if not met:
        raise DataError(
            "no answer compares candidates of two models", "candidates need `by`, the name of the model that wrote each"
        )
    names = sorted({name for one, two, _, _ in met for name in (one, two)})
    place_of = {name: place for place, name in enumerate(names)}
    return ratings(
        names,
        [place_of[one] for one, _, _, _ in met],
        [place_of[two] for _, two, _, _ in met],
        [score for _, _, score, _ in met],
        cluster_N=[cluster for _, _, _, cluster in met],
    )


def _by(pair: Pair, place: int) -> Producer | None:
    return pair.event.candidates[place].by


def _cluster(event: Event) -> str:
    """What depends on itself: the turns of a conversation, the answers to an item."""
    chat = event.extra.get("chat")
    return f"chat {chat.get('session')}" if isinstance(chat, dict) else event.item
