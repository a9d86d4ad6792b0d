"""A table of logits, one row per situation: the tabular policy of textbooks, with the interface of a language model.

`sees` defines a situation: the position, the last word, the word before it, the first word of the prompt. The "hidden state" is
the one-hot vector of the situation and the output layer is the table. Heads on it are therefore tables too, and every algorithm
that trains a language model also trains this table exactly.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from math import log, prod
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

import hookline
from hookline import Architecture, DataName, ExperimentError, Process, Tokenizer, Vocabulary, task

NEVER = -1e9
"""The logit of a forbidden word. Its probability and gradient are exactly 0, so it does not change."""
Seen = Literal["position", "first", "previous", "last"]


class TableConfig(PretrainedConfig):  # type: ignore[misc]
    model_type = "hookline-table"

    def __init__(
        self,
        vocab_size: int = 8,
        n_positions: int = 16,
        sees: Sequence[str] = ("position", "last"),
        rows: int | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**{"tie_word_embeddings": False, **rest})
        self.vocab_size, self.n_positions, self.sees, self.rows = vocab_size, n_positions, list(sees), rows

    @property
    def sizes(self) -> list[int]:
        return [self.n_positions if what == "position" else self.vocab_size for what in self.sees]

    @property
    def hidden_size(self) -> int:
        """Rows of the table: one per reachable situation if `rows` is set, otherwise one per possible situation."""
        return self.rows or prod(self.sizes)


class Words:
    """All tokens so far, which a table uses instead of a key-value cache."""

    def __init__(self, ids_BL: Tensor, position_BL: Tensor) -> None:
        self.ids_BL, self.position_BL = ids_BL, position_BL

    def batch_select_indices(self, index: Tensor) -> None:
        self.ids_BL, self.position_BL = self.ids_BL[index], self.position_BL[index]


class Situations(nn.Module):
    """Maps token ids to the one-hot vector of the situation after each token."""

    row_S: Tensor

    def __init__(self, config: TableConfig) -> None:
        super().__init__()
        self.config = config
        if config.rows:  # the row of the table for each situation; unreachable situations share row 0
            self.register_buffer("row_S", torch.zeros(prod(config.sizes), dtype=torch.int32))

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Words | None = None,
        use_cache: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        new = input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(new, device=input_ids.device).expand_as(input_ids)
        if past_key_values is not None:
            input_ids = torch.cat([past_key_values.ids_BL, input_ids], 1)
            position_ids = torch.cat([past_key_values.position_BL, position_ids], 1)
        index_BL = self.index(input_ids, position_ids)[:, -new:]
        if self.config.rows:
            index_BL = self.row_S[index_BL].long()
        hidden = torch.zeros(*index_BL.shape, self.config.hidden_size, device=index_BL.device)
        hidden.scatter_(-1, index_BL[..., None], 1.0)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden, past_key_values=Words(input_ids, position_ids) if use_cache else None
        )

    def index(self, ids_BL: Tensor, position_BL: Tensor) -> Tensor:
        """The row of the table for each token. Left padding is at position 0, the first word at position 1."""
        first = (
            (position_BL == 1).int().argmax(1, keepdim=True)
        )  # at position 0 there is no first word yet, so the token itself is used
        parts = {
            "position": position_BL.clamp(max=self.config.n_positions - 1),
            "first": torch.where(position_BL > 0, ids_BL.gather(1, first), ids_BL),
            "previous": torch.cat([ids_BL[:, :1], ids_BL[:, :-1]], 1),
            "last": ids_BL,
        }
        index_BL = torch.zeros_like(ids_BL)
        for what, size in zip(self.config.sees, self.config.sizes):
            index_BL = index_BL * size + parts[what]
        return index_BL


class Table(PreTrainedModel):  # type: ignore[misc]
    config_class = TableConfig
    base_model_prefix = "situations"
    _no_split_modules: list[str] = []

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.situations = Situations(config)
        self.table = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)

    def get_output_embeddings(self) -> nn.Linear:
        return self.table

    def forward(self, input_ids: Tensor, logits_to_keep: int = 0, **given: Any) -> CausalLMOutputWithPast:
        out = self.situations(input_ids, **given)
        return CausalLMOutputWithPast(
            logits=self.table(out.last_hidden_state[:, -logits_to_keep:]), past_key_values=out.past_key_values
        )


AutoConfig.register(TableConfig.model_type, TableConfig, exist_ok=True)
AutoModelForCausalLM.register(TableConfig, Table, exist_ok=True)


class Tabular(Architecture):
    """A softmax table. With `task`, it starts as the task's reference policy, which says only allowed words."""

    class Config(hookline.Config):
        sees: tuple[Seen, ...] = ("position", "last")
        """What distinguishes situations. More entries see more and learn more slowly; [] is a bandit."""
        task: DataName | None = None
        """A task with a process, e.g. builtin:walks: start at its reference policy instead of a uniform one."""
        context: int = Field(16, ge=2)
        """Maximum number of positions."""
        learners: int = Field(0, ge=0)
        """With `task`: number of separate tables in one, selected by the word (learner0, …) at the start of a prompt."""

    def build(self, tokenizer: Vocabulary) -> Any:
        c = self.config
        kind = TableConfig(tokenizer.vocabulary, c.context, c.sees, **tokenizer.special)
        if not c.task:
            return Table(kind)
        process = task(c.task).process()
        if process is None:
            raise ExperimentError(f"{c.task} has no process and therefore no reference policy", "leave out model.task")
        known = cast(Tokenizer, tokenizer)  # needs the words of the real tokenizer, which a placeholder does not have
        allowed = self._allowed(Situations(kind), process, known)
        kind.rows = len(allowed) + 1
        net: Any = Table(kind)
        words = known.inner.get_vocab()
        for row, (at, actions) in enumerate(allowed.items(), 1):
            net.situations.row_S[at] = row
            net.table.weight.data[:, row] = NEVER
            for word, probability in (actions or {"": 1.0}).items():
                net.table.weight.data[words[word] if word else known.eos, row] = log(probability)
        return net

    def _allowed(self, look: Situations, process: Process, tokenizer: Tokenizer) -> dict[int, dict[str, float]]:
        """Situation → word → probability under the reference, for every situation the process can reach."""
        found: dict[int, dict[str, float]] = {}
        for ids, actions in situations(process, tokenizer, self.config):
            at = int(look.index(torch.tensor([ids]), torch.arange(len(ids))[None])[0, -1])
            if found.setdefault(at, actions) != actions:
                raise ExperimentError(
                    f"a table that sees {list(self.config.sees)} cannot distinguish situations of {self.config.task} "
                    "that allow different words",
                    "add to `sees`: position, first, previous or last",
                )
        return found


def situations(
    process: Process, tokenizer: Tokenizer, config: Tabular.Config
) -> Iterator[tuple[list[int], dict[str, float]]]:
    """(token ids that lead there, allowed actions) for every state of a process, on one path to each situation."""

    def place(state: Hashable, ids: list[int]) -> tuple[object, ...]:
        return state, ids[1], ids[-1], len(ids) if "position" in config.sees else 0

    firsts = [f"learner{i} " for i in range(config.learners)] or [""]
    starts = [(state, process.prompt(state)) for _, state in process.starts()]
    level = [(state, tokenizer.prompt(first + prompt)) for first in firsts for state, prompt in starts]
    known = {place(state, ids) for state, ids in level}
    for state, ids in level:  # grows while we walk
        actions = dict(process.actions(state))
        yield ids, actions
        for action in actions:
            for _, after, _ in process.step(state, action):
                more = [*ids, *tokenizer.encode(f"{action} {process.shows(state, action, after)}")]
                if len(more) <= config.context and place(after, more) not in known:
                    known.add(place(after, more))
                    level.append((after, more))
