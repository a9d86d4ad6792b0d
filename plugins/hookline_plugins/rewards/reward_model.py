"""The reward that a trained reward model gives to an answer, read at its last token.

The model is that of an earlier phase, whose rows are the policy's own tokens, or that of a folder, which reads the answer as text
with its own tokenizer and chat template.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

import hookline
from hookline import (
    Batch,
    Component,
    Context,
    DataError,
    Encoder,
    ExperimentError,
    Metric,
    ModelPath,
    PhaseName,
    Rollout,
    Term,
    hookimpl,
)
from hookline_plugins.outputs import are_numbers, each_output, expected


class RewardModel(Component):
    """The head `reward` of an earlier phase's final model, or the score of a folder; in evaluations of the phase that trains a
    reward model, of the current model."""

    better = "higher"

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "reward_model_path": "path", "reward_pretrain": "path", "reward_scale": "scale", "reward_baseline": "shift",
        }  # fmt: skip
        from_: PhaseName | None = Field(None, alias="from")
        """The phase that trained the reward model. Without `from` and `path`, in evaluations of that phase: the current model."""
        path: ModelPath | None = None
        """The folder of a reward model: one for transformers' AutoModelForSequenceClassification, what `hookline export` wrote, or a
        run or RUN/phases/NAME that trained one. It may have another tokenizer than the policy."""
        label: str | None = None
        """With `path`: which score to read, by its name in config.json; needed where the model gives several."""
        output: str | None = None
        """Which of several outputs of the head `reward` is read, by its name."""
        join: Literal["mean", "lowest", "cautious", "expected"] | None = None
        """Several outputs as one reward: their mean, the lowest, or the mean minus `caution` times their variance
        (Coste et al. 2023); of classes that are named by numbers, the `expected` number."""
        caution: float = Field(1.0, ge=0)
        """The price of variance for `join: cautious`, per unit of reward."""
        overlong: Literal["refuse", "truncate"] = "refuse"
        """With `path`: what happens to a text that is too long for the reward model. `truncate` leaves out its beginning."""
        shift: float = 0.0
        """Added to every reward."""
        scale: float = Field(1.0, gt=0)
        """Factor of every reward, applied before the shift."""

        @model_validator(mode="after")
        def _one_source(self) -> Self:
            if self.from_ and self.path:
                raise ValueError("has two models; name either the phase, `from`, or the folder, `path`")
            if self.output and self.join:
                raise ValueError("reads one output, `output`, or joins all, `join`; name one of them")
            if self.path and (self.output or self.join):
                raise ValueError("has `output` or `join`, which are for the head of a phase; a folder's score is named by `label`")
            unread = next((name for name in ("label", "overlong") if name in self.model_fields_set), None)
            if unread and not self.path:
                raise ValueError(f"has `{unread}`, which is for the model of a folder; name its `path`")
            return self

    @property
    def needs(self) -> frozenset[str]:
        if self.config.path is None:
            return frozenset({"head:reward"})
        if Path(self.config.path).is_dir():  # if not, it is reported with the other folders of the experiment
            _ = self.column
        return frozenset({"scores"})

    @property
    def metrics(self) -> tuple[Metric, ...]:
        name = f"{self.instance or 'reward-model'}/truncated"
        return (Metric(name, "texts that were cut to fit the reward model", "texts", "sum", better="lower"),) if self._cuts else ()

    @property
    def _cuts(self) -> bool:
        return bool(self.config.overlong == "truncate")

    @property
    def column(self) -> int:
        """Which of the folder's scores is read."""
        labels, label = hookline.score_labels(str(self.config.path)), self.config.label
        if label is None and len(labels) == 1:
            return 0
        if label not in labels:
            what = f"has no score '{label}'" if label else f"gives {len(labels)} scores"
            raise ExperimentError(
                f"the model in {self.config.path} {what}", f"name one as `label`: {', '.join(labels)}"
            )
        return labels.index(label)

    def setup(self, ctx: Context) -> None:
        self.role: Any = "policy"
        self.encoder: Encoder | None = None
        if self.config.from_:
            self.role = f"reward-model:{self.config.from_}"
            ctx.role(self.role, phase=self.config.from_, frozen=True)
        elif self.config.path:
            self.role = f"reward-model:{self.config.path}"
            self.longest = ctx.role(self.role, path=self.config.path, frozen=True).context
            self.encoder, self.read = ctx.encoder(self.config.path), self.column

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        reward_B = self._of_texts(ctx, rollout) if self.encoder else self._of(ctx, rollout)
        return Term(reward_B * self.config.scale + self.config.shift, rollout.mask_BT.any(1))

    def _of(self, ctx: Context, batch: Batch) -> Tensor:
        """The head's figure at the last token of each row, [B]."""
        reward = ctx.stats(batch, model=self.role, want=("reward",))["reward"]
        if self.encoder is None:
            return self._of_phase(ctx, each_output(reward, batch.mask_BT))
        return each_output(reward, batch.mask_BT)[:, self.read]

    def _of_phase(self, ctx: Context, each_BK: Tensor) -> Tensor:
        """The reward of a phase's head, which may have several outputs."""
        c, names = self.config, getattr(ctx.role_named(self.role).heads["reward"].inner, "names", ())
        if not names and (c.output or c.join):
            asked = "output" if c.output else "join"
            raise ExperimentError(f"'{self.instance}' has `{asked}`, but the head 'reward' has one output", "leave it out")
        if not names and each_BK.shape[1] == 1:
            return each_BK[:, 0]
        if not c.join and c.output not in names:
            what = f"has no output '{c.output}'" if c.output else f"has {each_BK.shape[1]} outputs"
            raise ExperimentError(
                f"the head 'reward' {what}, and '{self.instance}' reads one",
                f"name one as `output`: {', '.join(names)}; or join them: mean, lowest, cautious or expected",
            )
        if not c.join:
            return each_BK[:, names.index(c.output)]
        if c.join == "expected":
            if not are_numbers(names):
                raise ExperimentError(
                    f"join is expected, and the outputs {', '.join(names)} are not all numbers", "choose mean, lowest or cautious"
                )
            return expected(each_BK, names)
        if c.join == "lowest":
            return each_BK.amin(1)
        return each_BK.mean(1) - (c.caution * each_BK.var(1, correction=0) if c.join == "cautious" else 0.0)

    # -- a folder's model, which reads texts

    def _of_texts(self, ctx: Context, rollout: Rollout) -> Tensor:
        """The score of each answer as the folder's own tokenizer and template write it, [B]."""
        assert self.encoder
        _refuse_turns(rollout, self.instance)
        rows = [self._text(ctx, rollout, row) for row in range(len(rollout))]
        return self._of(ctx, _texts(rollout, rows, self.encoder))

    def _text(self, ctx: Context, rollout: Rollout, row: int) -> list[int]:
        assert self.encoder
        record, where = rollout.records[row], f"sample {int(rollout.sample_B[row])}"
        if not any(record.get(key) for key in ("prompt", "messages", "conversations", "chosen")):
            record = {**record, "prompt": rollout.prompt_text(row)}
        ids = self.encoder.encode_text(record, _answer(ctx, rollout, row), where=where)
        over = len(ids) - self.longest
        if self._cuts:
            ctx.log(f"{self.instance}/truncated", float(over > 0))
        elif over > 0:
            raise DataError(
                f"{where}: its text has {len(ids)} tokens, and '{self.instance}' reads at most {self.longest}",
                "ask for shorter answers, or set `overlong: truncate`, which leaves out the beginning",
            )
        return ids[max(0, over) :]


def _answer(ctx: Context, rollout: Rollout, row: int) -> str:
    """An answer as it was said, with special tokens as text, except the one that ended it."""
    ids = rollout.response_ids(row)
    return ctx.tokenizer.decode(ids[:-1] if ids and ids[-1] in ctx.tokenizer.ends else ids, special=True)


def _texts(rollout: Rollout, rows: list[list[int]], encoder: Encoder) -> Batch:
    """The texts as rows, each with its last token to be scored."""
    length_B = torch.tensor([len(ids) for ids in rows], dtype=torch.long)
    prompt_ids_BP = torch.zeros(len(rows), max([1, *(len(ids) - 1 for ids in rows)]), dtype=torch.long)
    for row, ids in enumerate(rows):
        prompt_ids_BP[row, : len(ids) - 1] = torch.tensor(ids[:-1], dtype=torch.long)
    last_BT = torch.tensor([ids[-1:] for ids in rows], dtype=torch.long).reshape(len(rows), 1)
    one_B = torch.ones_like(length_B)
    return Batch(
        prompt_ids_BP=prompt_ids_BP,
        prompt_length_B=length_B - 1,
        token_ids_BT=last_BT,
        length_B=one_B,
        mask_BT=torch.ones_like(last_BT, dtype=torch.bool),
        group_B=rollout.group_B,
        sample_B=rollout.sample_B,
        records=rollout.records,
        decode=encoder.tokenizer.decode,
    )


def _refuse_turns(rollout: Rollout, who: str) -> None:
    """Refuse rows with several turns; their records hold only the first one."""
    inside_BT = torch.arange(rollout.mask_BT.shape[1]) < rollout.length_B[:, None]
    drawn = rollout.behaviour is not None
    if drawn and (bool((inside_BT & ~rollout.mask_BT).any()) or len(set(rollout.episode_B.tolist())) < len(rollout)):
        raise ExperimentError(
            f"'{who}' reads a prompt and one answer to it, but the rollout plays several turns",
            "use a reward model that a phase of this experiment trains (`from`)",
        )
