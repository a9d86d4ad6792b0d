"""What the tests of this folder share besides fixtures."""

from __future__ import annotations

from typing import Any

from hookline.loop.session import Session

CANARY = "cafe" * 10
"""A well-formed W&B key that must turn up nowhere."""
EVIL = '<script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)> </style>\x07 & $\\frac$'

ALL = ["wandb", "report", "tensorboard", "jsonl", "console"]
"""Every tracker; wandb before report, so that only `tryfirst` gets the report into W&B's artifacts."""


class Followed:
    """An open run, whose trackers are told by hand what the loop would tell them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.commit_row, self.commit_samples = session.commit_row, session.commit_samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session.run, name)

    @property
    def trackers(self) -> Any:
        return self.session.trackers

    def tell(self, what: str, **about: Any) -> None:
        self.session.trackers.tell(what, **about)


def commit(run: Followed, phase: str, steps: int, **figures: float) -> None:
    """A phase of so many steps with these figures, told to the trackers as the loop tells it."""
    run.tell("phase_started", phase=phase, steps=steps, done=0)
    for step in range(1, steps + 1):
        run.commit_row(
            phase, step, {"loss": 1.0 / step, **figures}, {"seconds/update": 0.01, "tokens_per_second": 900.0}
        )
