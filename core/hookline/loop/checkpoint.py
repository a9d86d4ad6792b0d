"""How a phase is kept on disk: saved on step boundaries, restored from its newest whole checkpoint, and finished."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hookline.errors import CheckpointError
from hookline.loop.phase import Counters, Phase
from hookline.plan.plan import Plan
from hookline.runs.run import Run
from hookline.storage import folders, trees

__all__ = ["Checkpoint", "cut_to_newest_save"]


class Checkpoint:
    """A phase on disk."""

    def __init__(self, phase: Phase) -> None:
        self.phase, self.run, self.name = phase, phase.session.run, phase.spec.name

    def save(self) -> None:
        """Write the phase as it is after this step; then remove all but the newest `save.keep` checkpoints."""
        phase, run = self.phase, self.run
        folder = run.checkpoint_folder(self.name, phase.scope.step)
        run.sync()
        about = {"phase": self.name, "step": phase.scope.step, "rows": len(run.rows()), "written": run.ledger.written()}
        with folders.write_aside(folder, about) as aside:
            for name, role in phase.roles.kept.items():
                trees.save_tree(aside, f"role-{name}", {"tensors": role.tensors(), "version": role.version})
            phase.save_components(aside)
            trees.save_tree(aside, "trainer", phase.trainer.state_dict() if phase.trainer else {})
            phase.roles.check_frozen(self.name, whole=False)
            core = {"samples": phase.scope.samples, "frozen": phase.frozen, **asdict(phase.counters)}
            trees.save_tree(aside, "core", core)
        # newer checkpoints are damaged or from an abandoned branch: they must not push out the one just made
        older = [other for other in run.checkpoints(self.name) if other.name < folder.name]
        newer = [other for other in run.checkpoints(self.name) if other.name > folder.name]
        for old in (*newer, *older[phase.spec.save.keep - 1 :]):
            shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> None:
        """Restore the phase from its newest whole checkpoint, or to its start, and cut the run's files back to that."""
        phase, run = self.phase, self.run
        found = newest(run, self.name)
        if found is None:
            plans = phase.session.plan.phases
            last = plans.index(phase.planned) - 1
            previous = run.finished(plans[last].spec.name) if last >= 0 else None
            phase.scope.samples = int(previous["samples"]) if previous else 0
            run.cut_back(int(previous["rows"]) if previous else 0, previous.get("written") if previous else None)
            run.cut_collected(self.name, 0)
            return
        folder, manifest = found
        for name, role in phase.roles.kept.items():
            saved = trees.load_tree(folder, f"role-{name}")
            role.load_tensors(saved["tensors"], str(folder))
            role.version = int(saved["version"])
        phase.load_components(folder)
        if phase.trainer:
            phase.trainer.load_state_dict(trees.load_tree(folder, "trainer"))
        core = trees.load_tree(folder, "core")
        for name, expected in core.pop("frozen").items():
            if phase.frozen[name] != expected:
                raise CheckpointError(
                    f"frozen role '{name}' of phase '{self.name}' has changed since the checkpoint was made",
                    "restore the folder phases/ as the run left it",
                )
        phase.scope.step, phase.scope.samples = int(manifest["step"]), int(core.pop("samples"))
        phase.counters = Counters(**core)
        run.cut_back(int(manifest["rows"]), manifest.get("written"))
        run.cut_collected(self.name, phase.counters.collected)

    def keep_best(self, figures: Mapping[str, float]) -> None:
        """Write the policy if this step has the best value so far of the figure that `save.best` names."""
        phase, best = self.phase, self.phase.spec.save.best
        if best is None:
            return
        value = figures.get(best.figure, math.nan)
        worth = -value if best.lowest else value
        if worth > phase.counters.best:
            phase.counters.best = worth
            about = {"step": phase.scope.step, best.figure: value}
            with folders.write_aside(self.run.directory / "best" / self.name, about) as aside:
                phase.roles["policy"].save(aside / "model")
        elif phase.scope.step == phase.spec.steps and phase.counters.best == -math.inf:
            self.run.notice(
                f"save.best: '{best.figure}' was never a number in phase '{self.name}', so nothing was kept"
            )

    def finish(self) -> None:
        """Write the phase's end: model, collected data, hashes. Then remove the phase's checkpoints."""
        phase, run = self.phase, self.run
        phase.roles.check_frozen(self.name, whole=True)
        policy = phase.roles["policy"]
        run.sync()
        about: dict[str, Any] = {
            "phase": self.name,
            "steps": phase.scope.step,
            "rows": len(run.rows()),
            "written": run.ledger.written(),
            "samples": phase.scope.samples,
            "adapter": policy.adapter,
            "data": dict(run.about.get("data", {})),
        }
        with folders.write_aside(run.phase_folder(self.name), about) as aside:
            about["weights"] = policy.save(aside / "model")
            phase.session.tokenizer.save(aside)
            for name, role in phase.roles.kept.items():
                if name != "policy":
                    role.save(aside / "roles" / name)
            collected = run.collecting(self.name)
            if collected.exists():
                shutil.copy(collected, aside / "data.jsonl")
        run.note(ended=[*run.about.get("ended", ()), self.name])
        for folder in run.checkpoints(self.name):
            shutil.rmtree(folder, ignore_errors=True)


def newest(run: Run, phase: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a phase. Damaged checkpoints are reported once and skipped."""
    kept = run.checkpoints(phase)
    damage = ""
    for folder in kept:
        try:
            return folder, folders.verify(folder)
        except CheckpointError as err:
            damage = err.message
            text = f"{err.message}; skipped"
            if text not in run.notices:
                run.notice(text)
    if kept:
        raise CheckpointError(
            f"every checkpoint of phase '{phase}' is damaged: {damage}",
            f"restore one, or remove {run.directory / 'checkpoints'} to begin the phase again",
        )
    return None


def cut_to_newest_save(plan: Plan, run: Run) -> None:
    """Cut rows back to the newest save, before trackers read them: later steps are repeated, bit for bit."""
    _refuse_lost_phases(plan, run)
    newest_save: Mapping[str, Any] = {"rows": 0}
    for phase in plan.phases:
        ended = run.finished(phase.spec.name)
        found = None if ended else newest(run, phase.spec.name)
        newest_save = ended or (found[1] if found else newest_save)
        if ended is None:
            break
    run.cut_back(int(newest_save["rows"]), newest_save.get("written"))


def _refuse_lost_phases(plan: Plan, run: Run) -> None:
    """Raises CheckpointError if a phase that had ended is missing, or one before a phase that has begun: repeating it would
    cut rows that nothing replaces."""
    names = [phase.spec.name for phase in plan.phases]
    begun = {name for name in names if run.phase_folder(name).exists() or run.checkpoints(name)}
    begun |= {row["phase"] for row in run.ledger.on_disk()}
    for at, name in enumerate(names):
        later = next((other for other in names[at + 1 :] if other in begun), None)
        if (later or name in run.about.get("ended", ())) and not run.phase_folder(name).exists():
            why = f"the later phase '{later}' has begun" if later else "the phase had ended"
            raise CheckpointError(
                f"{run.phase_folder(name)} is missing, but {why}", "restore it, or start a new run with --out"
            )
