"""The law of several processes: a component gives the same rows, gradients and figures on one process and on several.

One launch serves many components: the processes open one harness after the other. What one process computes is recorded in
this process, and compared with what the others wrote down.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hookline import rng
from hookline.batch.stages import Behaviour, Rollout
from hookline.errors import HooklineError, told
from hookline.inference.decode import draw_token
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.storage import trees
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import apart
from hookline.testing.subject import Subject
from hookline.testing.suite import Verdict, quietly, stands
from hookline.testing.surroundings import Setting
from hookline.world.launch import launch
from hookline.world.world import World, together

__all__ = ["GROUPS", "LAW", "Candidate", "Difference", "compared"]

LAW = "processes"
MEANING = "On several processes it gives the same rows, gradients and figures as on one."
GROUPS = (1, 2, 3, 7)
"""Numbers of prompts in a step, so that ranks have none, equally many and unequally many."""
STEPS = 3
SMALL = 1e-4
"""The learning rate: later steps then differ by rounding alone."""
ROUNDING = 1e-6
"""The largest difference of a gradient, in units of its largest entry; of a figure, relative to it or absolute."""
LATER = 1e-3
"""The same, once weights have moved."""
LEAST = 1e-2
"""A figure nearer to 0, e.g. a mean of terms that cancel, is compared as if it were so large: the terms are rounded, not
the mean."""


@dataclass(frozen=True)
class Candidate:
    """A component to test, as another process finds it."""

    offer: Offer
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Difference:
    """How far a component's steps on several processes are from those on one, for one number of prompts."""

    groups: int
    samples: str = ""
    """Which samples differ; empty if none does."""
    margin: float | None = None
    """If a drawn token differs: how far its random number is from giving the other token."""
    gradient: float = 0.0
    """The largest difference of a first gradient, in units of its largest entry."""
    later: float = 0.0
    """The same for gradients after weights have moved."""
    figures: float = 0.0
    """The largest relative difference of a figure of the first step."""
    worst: str = ""
    """The name of that figure, or of one that only one of the two has."""
    failed: str = ""
    """The error that ended the steps on several processes."""

    @property
    def problem(self) -> str:
        """What breaks the law; empty if nothing does."""
        if self.failed:
            return self.failed
        if self.gradient > ROUNDING:
            return f"the gradient differs by {self.gradient:.2g} of its largest entry; {ROUNDING:.0e} is allowed"
        if self.figures > 10 * ROUNDING:
            return f"the figure '{self.worst}' differs by {self.figures:.2g} of its value"
        if self.samples:
            return "" if self.margin is not None and self.margin <= 1e-5 else self.samples
        if self.later > LATER:
            return f"a later gradient differs by {self.later:.2g} of its largest entry; {LATER:.0e} is allowed"
        return ""


# -- in this process


def compared(
    candidates: Sequence[Candidate], processes: int = 2, groups: Sequence[int] = GROUPS
) -> list[tuple[Verdict, list[Difference]]]:
    """The verdict on each candidate, with what was measured, from as few launches as possible."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        jobs: list[dict[str, Any]] = []
        verdicts: dict[int, tuple[Verdict, list[Difference]]] = {}
        subjects: dict[int, Subject] = {}
        for number, candidate in enumerate(candidates):
            own = folder / str(number)
            own.mkdir()
            subject = stack.enter_context(Subject(candidate.offer, candidate.options, own))
            reason = dict(getattr(subject.cls, "exempt", {})).get(LAW, "")
            with quietly():
                why = f"the component says: {reason}" if reason else stands(subject)
            if why:
                verdicts[number] = Verdict(LAW, MEANING, "not applicable", why), []
                continue
            subjects[number] = subject
            jobs.append({"number": number, "folder": str(own), **_described(subject), "groups": list(groups)})
        errors = _launched(jobs, folder, processes)
        for number, subject in subjects.items():
            found = [_difference(subject, count, errors.get((number, count), "")) for count in groups]
            verdicts[number] = _verdict(found, processes), found
        return [verdicts[number] for number in range(len(candidates))]


def _described(subject: Subject) -> dict[str, Any]:
    assert subject.setting is not None
    offer = subject.offer
    loose = [offer.path] if offer.path and offer.distribution != "hookline.testing" else []
    return {
        "kind": offer.kind,
        "name": offer.name if loose else f"{offer.distribution}:{offer.name}",
        "loose": loose,
        "options": subject.options,
        "setting": asdict(subject.setting),
    }


def _launched(jobs: Sequence[Mapping[str, Any]], folder: Path, processes: int) -> dict[tuple[int, int], str]:
    """Let several processes do the jobs; returns the errors, by job and number of prompts."""
    errors: dict[tuple[int, int], str] = {}
    left = [{**job, "groups": [count]} for job in jobs for count in job["groups"]]
    while left:
        (folder / "jobs.json").write_text(json.dumps(left), encoding="utf-8")
        command = [sys.executable, "-m", "hookline.testing.ranks", str(folder / "jobs.json"), str(processes)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        open_ = [
            job for job in left if not _record(folder, job["number"], job["groups"][0]).with_suffix(".json").exists()
        ]
        if not open_:
            break
        first = open_[0]
        lines = ran.stderr.strip().splitlines() or [f"the processes ended with exit code {ran.returncode}"]
        errors[first["number"], first["groups"][0]] = next((text for text in lines if "Error: " in text), lines[-1])
        left = open_[1:]
    return errors


def _record(folder: Path, number: int, groups: int) -> Path:
    return folder / str(number) / f"several-{groups}"


def _verdict(found: Sequence[Difference], processes: int) -> Verdict:
    for one in found:
        if one.problem:
            prompts = "1 prompt" if one.groups == 1 else f"{one.groups} prompts"
            return Verdict(LAW, MEANING, "fail", f"{processes} processes, {prompts}: {one.problem}")
    near = [one for one in found if one.samples]
    largest = max(one.gradient for one in found)
    detail = f"gradients differ by at most {largest:.1g} of the largest entry"
    if near:
        detail += f"; {near[0].samples}, whose random number is within {near[0].margin:.0g} of the other token"
    return Verdict(LAW, MEANING, "pass", detail)


def _difference(subject: Subject, groups: int, error: str) -> Difference:
    found = Difference(groups, failed=error)
    if error:
        return found
    folder = subject.folder
    theirs = trees.load_tree(_record(folder.parent, int(folder.name), groups).parent, f"several-{groups}")
    if theirs.get("failed"):
        return replace(found, failed=str(theirs["failed"]))
    with quietly(), _opened(subject, groups, folder, World()) as harness:
        for step, there in enumerate(theirs["steps"]):
            here = _step(harness, there["samples"], found)
            if found.samples:
                return found
            near = max(map(apart, here["gradients"][:1], there["gradients"][:1]), default=0.0)
            after = max(map(apart, here["gradients"][1:], there["gradients"][1:]), default=0.0)
            if len(here["gradients"]) != len(there["gradients"]):
                near = float("inf")
            found.gradient = max(found.gradient, near if step == 0 else 0.0)
            found.later = max(found.later, after, 0.0 if step == 0 else near)
            if step == 0:
                _compare_figures(here["figures"], there["figures"], found)
    return found


def _compare_figures(here: Mapping[str, float], there: Mapping[str, float], found: Difference) -> None:
    for name in dict.fromkeys([*here, *there]):
        if name not in here or name not in there:
            found.figures, found.worst = float("inf"), name
            return
        off = abs(here[name] - there[name]) / max(LEAST, abs(here[name]))
        if off > found.figures:
            found.figures, found.worst = off, name


# -- in every process


@contextlib.contextmanager
def _opened(subject: Subject, groups: int, folder: Path, world: World) -> Iterator[Harness]:
    assert subject.setting is not None
    options = {"lr": SMALL} if "lr" in subject.cls.Config.model_fields else {}
    where = folder / f"run-{world.size}-{groups}"
    harness = Harness(subject, replace(subject.setting, groups=groups), options, where, world)
    try:
        yield harness
    finally:
        harness.close()


def _step(
    harness: Harness, expected: Mapping[str, Any] | None = None, found: Difference | None = None
) -> dict[str, Any]:
    """One step: the samples of all ranks by id, the gradient of every optimiser step, and the figures."""
    loop = harness.loop
    seen: dict[str, Any] = {"gradients": [], "samples": {}}
    rollout, trainer = loop.hooks.rollout, loop.phase.trainer

    def drawn(ctx: Any) -> Rollout:
        batch = rollout(ctx)
        own = {str(int(batch.sample_B[row])): batch.response_ids(row) for row in range(len(batch))}
        every = harness.run.world.gather(own, "the samples")
        seen["samples"] = {sample: ids for part in every for sample, ids in part.items()}
        if expected is not None and found is not None:
            _compare_samples(harness, batch, expected, found)
        return batch

    vars(loop.hooks)["rollout"] = drawn
    if trainer is not None:
        take = trainer.optimiser.step

        def noted(share: float) -> float:
            flat = [p.grad.reshape(-1) for _, p in sorted(trainer.parameters.items()) if p.grad is not None]
            seen["gradients"].append(torch.cat(flat) if flat else torch.zeros(0))
            return take(share)

        vars(trainer.optimiser)["step"] = noted
    try:
        figures = harness.step()
    finally:
        del vars(loop.hooks)["rollout"]
        if trainer is not None:
            del vars(trainer.optimiser)["step"]
    return {**seen, "figures": {name: value for name, value in figures.items() if value == value}}


def _compare_samples(harness: Harness, batch: Rollout, expected: Mapping[str, Any], found: Difference) -> None:
    own = {str(int(batch.sample_B[row])): row for row in range(len(batch))}
    if own.keys() != expected.keys():
        found.samples = f"samples {', '.join(sorted(own.keys() ^ expected.keys(), key=int)[:3])} are there only once"
        return
    for sample, row in own.items():
        here, there = batch.response_ids(row), list(expected[sample])
        if here != there:
            at = next((t for t, (a, b) in enumerate(zip(here, there)) if a != b), min(len(here), len(there)))
            found.samples = f"sample {sample} differs from token {at} on"
            if at < min(len(here), len(there)) and batch.behaviour is not None:
                ids = [*batch.prompt_ids(row), *here[:at]]
                found.margin = _margin(harness, batch.behaviour, ids, int(sample), at, here[at], there[at])
            return


def _margin(
    harness: Harness, behaviour: Behaviour, ids: Sequence[int], sample: int, at: int, one: int, other: int
) -> float | None:
    """How far the random number of a token is from giving another token; None if it does not give even the first one."""
    role = harness.loop.phase.roles["policy"]
    state = role.prefill([list(ids)], harness.tokenizer.eos)
    logits: Tensor = state.logits_BV.float()
    u = rng.uniform(harness.loop.phase.scope.drawing, torch.tensor([sample]), at)
    if int(draw_token(logits, behaviour.sampling, u).ids) != one:
        return None
    for size in (10.0**-k for k in range(9, 1, -1)):
        for moved in (u + size, u - size):
            if int(draw_token(logits, behaviour.sampling, moved.clamp(0, 1 - 1e-12)).ids) == other:
                return size
    return 1.0


def _main(jobs: str, processes: int) -> int:
    """Do the jobs, as one of several processes; rank 0 writes what came out."""
    with together(300.0) as link:
        world = World(link=link)
        for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
            offer = offers.find(job["kind"], job["name"], offers.loose_of(job["loose"]))
            folder, (groups,) = Path(job["folder"]), job["groups"]
            own = folder / f"rank-{world.rank}"
            own.mkdir(exist_ok=True)
            subject = Subject(offer, job["options"], own)
            subject.setting = Setting(**job["setting"])
            steps: list[dict[str, Any]] = []
            failed = ""
            with subject, quietly():
                try:
                    with _opened(subject, groups, folder, world) as harness:
                        for _ in range(STEPS):
                            steps.append(_step(harness))
                        harness.loop.checkpoint.save()
                except HooklineError as err:
                    if not err.everywhere:
                        raise
                    failed = str(err)
            if world.leads:
                name = f"several-{groups}"
                trees.save_tree(folder, name, {"steps": steps, "failed": failed}, "the record")
    return 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) == 2:
        sys.exit(launch([sys.executable, "-m", "hookline.testing.ranks", *arguments, "rank"], int(arguments[1])))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            sys.exit(_main(arguments[0], int(arguments[1])))
    except HooklineError as err:
        sys.exit(told(err))
