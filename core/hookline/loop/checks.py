"""Checks of what a hook returned: stages, shapes, finite values, no gradient."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hookline.batch.columns import check_column
from hookline.batch.stages import Advantaged, Batch, Rollout, Scored, Term
from hookline.contract.feedback import ANSWERS, Event
from hookline.contract.judgement import Judgement
from hookline.errors import NumbersError, PluginError, a
from hookline.registry.slot import Slot

__all__ = ["check_batch", "check_term", "checked", "figure"]


def checked(answer: Any, hook: str, slot: Slot, arguments: Mapping[str, Any]) -> Any:
    stages: dict[str, type[Batch]] = {
        "hookline_rollout": Rollout,
        "hookline_score": Scored,
        "hookline_advantage": Advantaged,
    }
    stage = stages.get(hook)
    if stage:
        if not isinstance(answer, stage):
            raise PluginError(
                f"{slot.offer}: {hook} returned {kind_of_answer(answer)}, not {stage.__name__}", _RETURNS[hook]
            )
        check_batch(answer, f"{slot.offer}: {hook}")
        if stage is Rollout and "ctx" in arguments:
            arguments["ctx"].role_named("policy").check_ids(answer, f"{slot.offer}: {hook}")
    if hook == "hookline_judge":
        if not isinstance(answer, Sequence) or not all(isinstance(j, Judgement | Event) for j in answer):
            raise PluginError(
                f"{slot.offer}: {hook} returned {kind_of_answer(answer)}, not a list of Judgement or Event",
                "return [] for no judgement",
            )
        for judgement in answer:
            if isinstance(judgement, Judgement):
                _check_judgement(judgement, slot, len(arguments["scored"]))
        return [(slot.instance, judgement) for judgement in answer]
    if hook == "hookline_update":
        if not (answer is None or isinstance(answer, Mapping)):
            raise PluginError(
                f"{slot.offer}: {hook} returned {kind_of_answer(answer)}, not figures by name",
                "return a dict or nothing",
            )
        return {
            figure_key(name, slot): figure(value, f"{slot.offer}: '{name}'") for name, value in (answer or {}).items()
        }
    return answer


def figure_key(name: Any, slot: Slot) -> str:
    """The name of a figure, which must be text."""
    if not isinstance(name, str):
        raise PluginError(f"{slot.offer}: a figure is called {name!r:.40}", "name figures with text")
    return name


def figure(value: Any, whose: str) -> float:
    """A figure as a float: a number, or a tensor or array with one."""
    try:
        one = value.item() if hasattr(value, "item") else value
        if isinstance(one, str | bytes):
            raise TypeError
        return float(one)
    except OverflowError:
        raise PluginError(f"{whose} is a number beyond floating point", "log its logarithm") from None
    except (TypeError, ValueError, RuntimeError):
        raise PluginError(
            f"{whose} is {kind_of_answer(value)}, not a number", "give one number for each figure"
        ) from None


def _check_judgement(judgement: Judgement, slot: Slot, rows: int) -> None:
    judged, ranks = judgement.judged, bool(judgement.ranking)
    if len(judged) < 1 + ranks or len(set(judged)) < len(judged) or not all(0 <= i < rows for i in judged):
        raise PluginError(
            f"{slot.offer}: a judgement {'ranks' if ranks else 'is about'} rows {list(judged)} of {rows}",
            f"name at least {'two rows' if ranks else 'one row'}, each once",
        )
    if (judgement.answer is None) is not ranks or not isinstance(judgement.said, tuple(ANSWERS.values())):
        raise PluginError(
            f"{slot.offer}: a judgement has the answer {kind_of_answer(judgement.answer)}{' and a ranking' if ranks else ''}",
            "give `rows` and an answer such as hookline.Comparison, or a `ranking` alone",
        )
    try:
        json.dumps([judgement.annotator, list(judgement.gold or ()), dict(judgement.detail)], allow_nan=False)
    except (TypeError, ValueError) as err:
        raise PluginError(
            f"{slot.offer}: a judgement cannot be stored as JSON: {err}",
            "keep text and finite numbers in its annotator, gold and detail",
        ) from None


_RETURNS = {
    "hookline_rollout": "return a hookline.Rollout",
    "hookline_score": "return scored.with_reward(...)",
    "hookline_advantage": "return scored.advantaged(...)",
}


def kind_of_answer(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return f"a tensor {list(answer.shape)}"
    return "nothing" if answer is None else a(type(answer).__name__)


def check_batch(batch: Batch, who: str) -> None:
    """Check that shapes agree, values are finite where the policy chose, and advantages are zero elsewhere."""
    shape_BT, shape_BP = batch.token_ids_BT.shape, batch.prompt_ids_BP.shape
    for name, tensor in batch.tensors().items():
        column = "term_B" if name.startswith("terms[") else name.removesuffix("]").rpartition("[")[2].rpartition(".")[2]
        try:
            check_column(column, tensor, shape_BT, shape_BP)
        except ValueError as err:
            raise PluginError(
                f"{who}: {err}", "every tensor of a batch holds the same rows in the same order"
            ) from None
    if len(batch.records) != len(batch):
        raise PluginError(f"{who}: {len(batch.records)} records for {len(batch)} rows", "give one record per row")
    if batch.mask_BT.dtype != torch.bool:
        raise PluginError(
            f"{who}: mask_BT is {batch.mask_BT.dtype}, not bool",
            "convert it to bool: true where the policy chose the token",
        )
    if "ok_B" in batch.extra and batch.extra["ok_B"].dtype != torch.bool:
        raise PluginError(
            f"{who}: the column ok_B is {batch.extra['ok_B'].dtype}, not bool",
            "convert it to bool: false where a row could not be judged",
        )
    inside_BT = torch.arange(shape_BT[1], device=batch.length_B.device) < batch.length_B[:, None]
    if bool((batch.mask_BT & ~inside_BT).any()) or (len(batch) and int(batch.length_B.max()) > shape_BT[1]):
        raise PluginError(
            f"{who}: mask_BT or length_B reach beyond the response tokens", "mask only tokens below length_B"
        )
    for name in ("finish_reason", "source"):
        if len(getattr(batch, name, batch.records)) != len(batch):
            raise PluginError(
                f"{who}: {len(getattr(batch, name))} values of {name} for {len(batch)} rows", "give one per row"
            )
    if isinstance(batch, Rollout) and len(batch):
        episodes, where_B = torch.unique(batch.episode_B, return_inverse=True)
        group_E = batch.group_B.new_zeros(len(episodes)).index_put((where_B,), batch.group_B)
        if bool((group_E[where_B] != batch.group_B).any()):
            raise PluginError(
                f"{who}: an episode has rows in two groups", "all rows of an episode must answer the same prompt"
            )
    if len(batch) and int(batch.prompt_length_B.min()) < 1:
        raise PluginError(
            f"{who}: a row has no prompt token", "every row needs one; for plain text, use its first token"
        )
    for name in ("reward_BT", "advantage_BT"):
        if not hasattr(batch, name):
            continue
        tensor = getattr(batch, name)
        if tensor.requires_grad:
            raise PluginError(f"{who}: {name} carries a gradient", "detach it, or compute it under torch.no_grad()")
        if name == "advantage_BT" and bool((tensor[~batch.mask_BT] != 0).any()):
            raise PluginError(
                f"{who}: advantage_BT is not 0 where mask_BT is false", "multiply by the mask, or use torch.where"
            )
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            row = int(bad.any(1).nonzero()[0])
            raise NumbersError(
                f"{who}: {name} is {float(tensor[row][bad[row]][0])} in sample {int(batch.sample_B[row])} "
                f"('{batch.prompt_text(row)[:40]}'); the weights are as before this step",
                "fix the reward or advantage that returned it",
            )


def check_term(answer: Any, slot: Slot, rollout: Rollout) -> Term:
    """A reward's answer as a Term, with its shape and finite values checked."""
    term = answer if isinstance(answer, Term) else Term(answer)
    value = term.value
    if not isinstance(value, Tensor):
        raise PluginError(
            f"{slot.offer} returned {kind_of_answer(answer)}", f"return a float tensor [{len(rollout)}], or a Term"
        )
    B, T = rollout.token_ids_BT.shape
    if value.device.type == "meta" or value.layout != torch.strided or value.is_complex():
        what = (
            "complex"
            if value.is_complex()
            else "sparse"
            if value.layout != torch.strided
            else "on meta, without values"
        )
        raise PluginError(f"{slot.offer} returned a tensor that is {what}", f"return a float tensor [{B}]")
    if tuple(value.shape) not in ((B,), (B, T)):
        raise PluginError(f"{slot.offer} returned {list(value.shape)} for {B} rows", f"return [{B}] or [{B}, {T}]")
    if value.requires_grad:
        raise PluginError(f"{slot.offer} returned a reward that carries a gradient", "compute it under torch.no_grad()")
    ok_B = torch.ones(B, dtype=torch.bool) if term.ok_B is None else term.ok_B
    if not isinstance(ok_B, Tensor) or ok_B.dtype != torch.bool:
        what = str(ok_B.dtype) if isinstance(ok_B, Tensor) else kind_of_answer(ok_B)
        raise PluginError(
            f"{slot.offer}: ok_B is {what}, not a bool tensor",
            f"return Term(value, ok_B) with a bool [{B}], true where the row was judged",
        )
    if tuple(ok_B.shape) != (B,):
        raise PluginError(f"{slot.offer}: ok_B is {list(ok_B.shape)} for {B} rows", f"return [{B}]")
    value = value.detach().float()
    shown = torch.where(rollout.mask_BT, value, 0.0) if value.dim() == 2 else value
    bad = ~torch.isfinite(shown).reshape(B, -1).all(1) & ok_B if B else ok_B
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise NumbersError(
            f"{slot.offer} gave {float(shown[row].sum())} to sample {int(rollout.sample_B[row])} "
            f"('{rollout.prompt_text(row)[:40]}'); the weights are as before this step",
            "fix the reward, or return Term(value, ok_B) to leave such rows out",
        )
    kept = torch.where(ok_B if shown.dim() == 1 else ok_B[:, None], shown, 0.0)
    return Term(kept, ok_B, _check_weights(term, slot, B), term.summary)


def _check_weights(term: Term, slot: Slot, B: int) -> Tensor | None:
    weight_B = term.weight_B
    if weight_B is None:
        return None
    if not isinstance(weight_B, Tensor) or tuple(weight_B.shape) != (B,) or not bool((weight_B >= 0).all()):
        raise PluginError(f"{slot.offer}: weight_B is not {B} numbers of at least 0", "give each row one weight, or None")
    return weight_B.detach().double()
