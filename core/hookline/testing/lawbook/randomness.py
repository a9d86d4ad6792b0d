"""The law about random numbers: they come from keys, not from generators that a whole process shares."""

from __future__ import annotations

from hookline.testing.subject import Subject
from hookline.testing.suite import UNREACHED, Broken, NotApplicable, law, shared_generators, stands


@law("loop", alone=True)
def own_randomness(subject: Subject) -> str | None:
    """Random numbers come from ctx.rng: the generators of `random`, NumPy and torch, which others use, stay as they were."""
    if stands(subject):
        raise NotApplicable(UNREACHED)
    used = shared_generators(subject)
    if used:
        raise Broken(
            f"setup or a step used the global generator of {' and of '.join(used)}, whose state no checkpoint holds; "
            "draw from ctx.rng(purpose, sample id)"
        )
    return None
