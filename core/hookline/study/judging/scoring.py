"""The rewards that a run's reward model gives to the candidates of events, and the states from which its head reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hookline.contract.feedback import Event
from hookline.errors import ExperimentError
from hookline.runs.run import Run
from hookline.runs.samples import Floats
from hookline.storage.paths import expanded
from hookline.study.speak import run_of

if TYPE_CHECKING:
    from hookline.tokens.tokenizer import Tokenizer

__all__ = ["Scored", "score_candidates"]

HEAD = "reward"
ROWS = 32


@dataclass(frozen=True, eq=False)
class Scored:
    """Candidates by (item, place)."""

    reward: Mapping[tuple[str, int], float]
    """What the head says."""
    state: Mapping[tuple[str, int], Floats]
    """[H] the network's state that the head read."""
    left_out: int
    """Candidates that are longer than the model's context."""


def score_candidates(model: Run | str | Path, events: Iterable[Event], output: str = "") -> Scored:
    """Read every candidate of the events' items once with the head `reward` of a run's last phase or of RUN/phases/NAME.

    output: which of several outputs of the head is read. Raises ExperimentError if the phase trained no such head, or the head
    has several outputs and none of this name; CheckpointError if the directory is not a run.
    """
    import torch

    from hookline.models.role import ReadHead
    from hookline.study.finished import ended

    path = expanded(Path(model.directory if isinstance(model, Run) else model))
    run, phase = run_of(path)
    found = ended(run or path, phase or _phase_with_head(run or path))
    if HEAD not in found.role.heads:
        raise ExperimentError(
            f"phase '{found.phase.spec.name}' of {path} trained no head '{HEAD}'",
            "name RUN/phases/NAME of a reward model",
        )
    head, column = cast(ReadHead, found.role.heads[HEAD]), _column(found.role.outputs(HEAD), output)
    todo: dict[tuple[str, int], tuple[Sequence[int], Sequence[int]]] = {}
    left_out: set[tuple[str, int]] = set()
    for event in events:
        for place in range(len(event.candidates)):
            key = (event.item, place)
            if key in todo or key in left_out:
                continue
            prompt, answer = _ids(found.tokenizer, event, place)
            if len(prompt) + len(answer) > found.role.context:
                left_out.add(key)
            else:
                todo[key] = prompt, answer
    order = sorted(todo, key=lambda key: (-len(todo[key][0]) - len(todo[key][1]), key))
    reward: dict[tuple[str, int], float] = {}
    state: dict[tuple[str, int], Floats] = {}
    for start in range(0, len(order), ROWS):
        some = order[start : start + ROWS]
        with torch.no_grad():
            hidden = found.role.states(_batch([todo[key] for key in some], found.tokenizer), [head.reads])[head.reads]
            value = head(hidden)
        for key, number, row in zip(some, (value if value.dim() == 1 else value[:, column]).tolist(), np.asarray(hidden.double())):
            reward[key], state[key] = number, row
    return Scored(reward, state, len(left_out))


def _column(names: Sequence[str], output: str) -> int:
    """Which output of a head is read. names: of its outputs; none if it has one."""
    if not names and output:
        raise ExperimentError(f"the output '{output}' is asked for, but the head '{HEAD}' has one output", "leave it out")
    if names and output not in names:
        what = f"has no output '{output}'" if output else f"has {len(names)} outputs"
        raise ExperimentError(f"the head '{HEAD}' {what}", f"name one as `output`: {', '.join(names)}")
    return names.index(output) if names else 0


def _phase_with_head(run: str | Path) -> str | None:
    """The last finished phase with a head `reward`, if the run has one."""
    about = Run.read(run)
    names = [
        str(phase.get("name"))
        for phase in about.experiment["phases"]
        if HEAD in str((phase.get("model") or {}).get("head")) and about.finished(str(phase.get("name")))
    ]
    return names[-1] if names else None


def _ids(tokenizer: Tokenizer, event: Event, place: int) -> tuple[Sequence[int], Sequence[int]]:
    """The tokens as they were sampled, where the event has them; else those of the texts."""
    from hookline.tokens.encode import encode

    candidate = event.candidates[place]
    known = [*(event.prompt_ids or ()), *(candidate.token_ids or ())]
    if event.prompt_ids and candidate.token_ids and max(known) < tokenizer.vocabulary:
        return event.prompt_ids, candidate.token_ids
    prompt = event.prompt if isinstance(event.prompt, str) else list(event.prompt)
    made = encode(
        tokenizer, {**event.record, "prompt": prompt, "candidate": candidate.text}, answer="candidate", where=event.item
    )
    return made.prompt_ids, made.answer_ids


def _batch(rows: Sequence[tuple[Sequence[int], Sequence[int]]], tokenizer: Tokenizer) -> Any:
    """Rows whose last token alone is read."""
    import torch

    from hookline.batch.columns import pad_rows
    from hookline.batch.stages import Batch

    prompt_ids_BP, prompt_length_B = pad_rows([prompt for prompt, _ in rows])
    token_ids_BT, length_B = pad_rows([answer for _, answer in rows])
    last_BT = torch.arange(token_ids_BT.shape[1]) == length_B[:, None] - 1
    number_B = torch.arange(len(rows))
    return Batch(
        prompt_ids_BP=prompt_ids_BP,
        prompt_length_B=prompt_length_B,
        token_ids_BT=token_ids_BT,
        length_B=length_B,
        mask_BT=last_BT,
        group_B=number_B,
        sample_B=number_B,
        records=tuple({} for _ in rows),
        decode=tokenizer.decode,
    )
