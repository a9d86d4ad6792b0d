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
from hookline.loop.shares import States, gathered, refuse_parted
from hookline.plan.plan import Plan
from hookline.runs.directory import COLLECTED
from hookline.runs.run import Run
from hookline.storage import folders, trees

__all__ = ["Checkpoint", "cut_to_newest_save"]


class Checkpoint:
    """A phase on disk."""

    def __init__(self, phase: Phase) -> None:
        self.phase, self.run, self.name = phase, phase.session.run, phase.spec.name

    def save(self) -> None:
        """Write the phase as it is after this step; then remove all but the newest `save.keep` checkpoints."""
        self._refuse_parted()
        states, dealt = gathered(self.phase.component_states(), self.run.world)
        self.phase.roles.check_frozen(self.name, whole=False)
        self.run.world.main(lambda: self._write(states, dealt), "a save")

    def _refuse_parted(self) -> None:
        """Raises an error if weights, optimiser or data differ between ranks."""
        phase, world = self.phase, self.run.world
        if world.size > 1:
            data = self.run.about.get("data", {})
            refuse_parted(data, "give every machine the same files, and start a new run with --out", world)
            parts: dict[str, Any] = {f"role '{name}'": role.hash() for name, role in phase.roles.kept.items()}
            parts["the optimiser"] = phase.trainer.state_dict() if phase.trainer else {}
            refuse_parted(parts, "nothing but ctx.train may change weights; and use machines of one kind", world)

    def _write(self, states: States, dealt: Mapping[str, Any]) -> None:
        phase, run = self.phase, self.run
        folder = run.checkpoint_folder(self.name, phase.scope.step)
        run.sync()
        about = {"phase": self.name, "step": phase.scope.step, "rows": len(run.rows()), "written": run.ledger.written()}
        with folders.write_aside(folder, about) as aside:
            for name, role in phase.roles.kept.items():
                trees.save_tree(aside, f"role-{name}", {"tensors": role.tensors(), "version": role.version})
            phase.save_components(aside, states)
            trees.save_tree(aside, "trainer", phase.trainer.state_dict() if phase.trainer else {})
            core = {"samples": phase.scope.samples, "frozen": phase.frozen, "dealt": dealt, **asdict(phase.counters)}
            trees.save_tree(aside, "core", core)
        # newer checkpoints are damaged or from an abandoned branch: they must not push out the one just made
        older = [other for other in run.checkpoints(self.name) if other.name < folder.name]
        newer = [other for other in run.checkpoints(self.name) if other.name > folder.name]
        for old in (*newer, *older[phase.spec.save.keep - 1 :]):
            shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> None:
        """Restore the phase from its newest whole checkpoint, or to its start, and cut the run's files back to that."""
        phase, run = self.phase, self.run
        found = run.world.main(lambda: newest(run, self.name), "the newest save")
        if found is None:
            plans = phase.session.plan.phases
            last = plans.index(phase.planned) - 1
            previous = run.world.main(lambda: run.finished(plans[last].spec.name) if last >= 0 else None)
            phase.scope.samples = int(previous["samples"]) if previous else 0
            run.cut_back(int(previous["rows"]) if previous else 0, previous.get("written") if previous else None)
            run.cut_collected(self.name, 0)
            return
        folder, manifest = found
        for name, role in phase.roles.kept.items():
            saved = trees.load_tree(folder, f"role-{name}")
            role.load_tensors(saved["tensors"], str(folder))
            role.version = int(saved["version"])
        core = trees.load_tree(folder, "core")
        phase.load_components(folder, core.pop("dealt", {}))
        if phase.trainer:
            phase.trainer.load_state_dict(trees.load_tree(folder, "trainer"))
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
            self.run.world.main(lambda: self._write_best({"step": phase.scope.step, best.figure: value}), "a save")
        elif phase.ended and phase.counters.best == -math.inf:
            self.run.notice(
                f"save.best: '{best.figure}' was never a number in phase '{self.name}', so nothing was kept"
            )

    def _write_best(self, about: Mapping[str, Any]) -> None:
        with folders.write_aside(self.run.directory / "best" / self.name, about) as aside:
            self.phase.roles["policy"].save(aside / "model")

    def finish(self, last: bool = False) -> None:
        """Write the phase's end: model, collected data, hashes. Then remove the phase's checkpoints.

        last: the phase is the last one, of which a checkpoint is kept, so that more steps can follow.
        """
        self.phase.roles.check_frozen(self.name, whole=True)
        kept = last and self.phase.spec.save.end and self.phase.trainer is not None
        if kept and not self.run.world.main(lambda: self._saved(), "the newest save"):
            self.save()
        self._refuse_parted()
        ended = [*self.run.about.get("ended", ()), self.name]
        self.run.world.main(lambda: self._write_end(ended, kept), "the phase's end")
        self.run.note(ended=ended)

    def _saved(self) -> bool:
        """Whether the newest checkpoint is of the present step."""
        return self.run.checkpoint_folder(self.name, self.phase.scope.step) in self.run.checkpoints(self.name)[:1]

    def _write_end(self, ended: list[str], kept: bool) -> None:
        phase, run = self.phase, self.run
        policy = phase.roles["policy"]
        run.sync()
        about: dict[str, Any] = {
            "phase": self.name,
            "steps": phase.scope.step,
            "planned": phase.spec.steps,
            "stopped": phase.counters.stopped,
            "rows": len(run.rows()),
            "written": run.ledger.written(),
            "samples": phase.scope.samples,
            "adapter": policy.adapter,
            "data": dict(run.about.get("data", {})),
        }
        with folders.write_aside(run.phase_folder(self.name), about) as aside:
            about["weights"] = policy.save(aside / "model")
            phase.session.tokenizer.export(aside / "model")  # so that transformers loads the folder
            phase.session.tokenizer.save(aside)
            for name, role in phase.roles.kept.items():
                if name != "policy":
                    role.save(aside / "roles" / name)
            collected = run.collecting(self.name)
            if collected.exists():
                shutil.copy(collected, aside / COLLECTED)
        run.note(ended=ended)
        for folder in run.checkpoints(self.name)[int(kept) :]:
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
    newest_save = run.world.main(lambda: _newest_save(plan, run), "the newest save")
    run.cut_back(int(newest_save["rows"]), newest_save.get("written"))


def _newest_save(plan: Plan, run: Run) -> Mapping[str, Any]:
    """The manifest of the newest save of a run."""
    _refuse_lost_phases(plan, run)
    newest_save: Mapping[str, Any] = {"rows": 0}
    for phase in plan.phases:
        ended = run.finished(phase.spec.name, phase.spec.steps)
        found = None if ended else newest(run, phase.spec.name)
        newest_save = ended or (found[1] if found else newest_save)
        if ended is None:
            break
    return newest_save


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
