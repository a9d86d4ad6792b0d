"""The conformance suite: laws that every component of a kind keeps, tested on the real engine with a tiny model.

In a distribution's tests:

    from hookline.testing import conformance
    from hookline_foo import Foo
    test_foo = conformance(Foo)              # one test per law; options as keywords: conformance(Foo, gamma=0.9)

`check(Foo)` returns the verdicts as values, `hookline plugins check foo` prints them, and the pytest fixture `hookline_harness` puts
a component into a real phase for tests of your own; `open_phase(experiment)` opens a phase of any experiment. A component
claims a law beyond those of its kind with `promises = {"reinforce"}`, and names a law that cannot hold for it, with the
reason, in `exempt = {"other-rows": "ranks within the batch"}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

_HOMES = {
    "hookline.testing.bench.baseline": ("stored_kernels",),
    "hookline.testing.bench.child": ("in_child", "peak_bytes"),
    "hookline.testing.bench.kernels": ("bench_kernels", "judge_kernels"),
    "hookline.testing.bench.measure": ("machine",),
    "hookline.testing.bench.parts": ("PARTS", "timed_steps"),
    "hookline.testing.bench.update": ("bench_update",),
    "hookline.testing.harness": ("Harness",),
    "hookline.testing.opening": ("open_phase",),
    "hookline.testing.subject": ("Subject",),
    "hookline.testing.suite": ("Law", "Report", "Verdict", "check", "conformance", "laws"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "PARTS",
    "Harness",
    "Law",
    "Report",
    "Subject",
    "Verdict",
    "bench_kernels",
    "bench_update",
    "check",
    "conformance",
    "in_child",
    "judge_kernels",
    "laws",
    "machine",
    "open_phase",
    "peak_bytes",
    "stored_kernels",
    "timed_steps",
]

if TYPE_CHECKING:
    from hookline.testing.bench.baseline import stored_kernels
    from hookline.testing.bench.child import in_child, peak_bytes
    from hookline.testing.bench.kernels import bench_kernels, judge_kernels
    from hookline.testing.bench.measure import machine
    from hookline.testing.bench.parts import PARTS, timed_steps
    from hookline.testing.bench.update import bench_update
    from hookline.testing.harness import Harness
    from hookline.testing.opening import open_phase
    from hookline.testing.subject import Subject
    from hookline.testing.suite import Law, Report, Verdict, check, conformance, laws


def __getattr__(name: str) -> object:
    """Names are imported when they are first used, because pytest loads this package in every session."""
    if name == "Bench":
        from hookline.errors import renamed

        renamed("hookline.testing.Bench", "Harness")
        name = "Harness"
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hookline.testing' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
