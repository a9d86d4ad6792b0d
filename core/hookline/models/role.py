"""A model in its role: the network, the heads on its trunk, and which of its parameters learn."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hookline import rng
from hookline.batch.stages import Batch
from hookline.contract.family import Decoding, Family, Side
from hookline.errors import CheckpointError, ExperimentError, PluginError
from hookline.storage import trees

__all__ = ["BESIDE_NET", "ReadHead", "Role", "saved_tensors"]

BESIDE_NET = ("heads.", "own.")
"""How the names of what a role has beside its network begin: heads, and parameters of components' own."""

NEVER = -1e9
"""The logit of an id that no token has: its probability is 0 in every type, and 0 times it is 0."""


class ReadHead(nn.Module):
    """A head on a network, and which state the head reads: the one before or after a token, or the row's."""

    def __init__(self, inner: nn.Module, reads: Side) -> None:
        super().__init__()
        self.inner = inner
        self.reads = reads

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.inner(hidden.float())
        return cast(Tensor, out.squeeze(-1) if out.shape[-1] == 1 and out.dim() == hidden.dim() else out)


class Role:
    """One model: a network, the family that says how it computes, its heads, and which of its parameters learn."""

    def __init__(
        self,
        name: str,
        net: Any,
        family: Family,
        *,
        autocast: torch.dtype | None = None,
        adapter: bool = False,
        recompute: bool = False,
    ) -> None:
        self.name = name
        self.net = net
        self.family = family
        self.heads = nn.ModuleDict()
        self.own: dict[str, nn.Parameter] = {}
        """Parameters that components added, by name."""
        self.rates: dict[str, float] = {}
        """The peak learning rates of those that have one of their own."""
        self.autocast = autocast
        self.adapter = adapter
        self.recompute = recompute
        self.adapter_fresh = False
        """True if no earlier phase trained the adapter, so that the network without it is the phase's start."""
        self.adapter_off = False
        self.version = 0
        self.fused: bool | None = None
        """True if output layer × state equals the network's own logits; None until checked."""
        self.packing = 0
        """How much shorter than the longest row of a part a row may be to be packed with it, in tokens; 0 if rows are
        padded."""
        self.compared = False
        """Whether the first packed batch was compared with its rows alone."""
        self.brought: dict[str, nn.Linear] = {}
        """Layers that the folder of the network has, with which new heads of their names begin."""
        self.unknown: Tensor | None = None
        """The ids of the output layer that no token has, bool [V]; None if every id is a token's."""
        net.eval()

    def knows(self, tokens: int, gaps: Sequence[int]) -> None:
        """Tell the role which ids are tokens: those below `tokens`, except the gaps. Others are never drawn or counted."""
        found = self.family.output(self.base)
        if found is None or (tokens >= len(found[0]) and not gaps):
            return
        self.unknown = torch.arange(len(found[0]), device=self.device) >= tokens
        self.unknown[list(gaps)] = True

    def only_tokens(self, logits: Tensor) -> Tensor:
        """Logits [..., V] with those of ids that no token has far below all others."""
        return logits if self.unknown is None else logits.masked_fill(self.unknown, NEVER)

    @property
    def base(self) -> Any:
        """The network itself, below any adapter."""
        return self.net.get_base_model() if self.adapter else self.net

    @property
    def context(self) -> int:
        """The maximum number of positions."""
        return self.family.context(self.base)

    @property
    def hidden_size(self) -> int:
        with self.computing():
            return self.family.width(self.base)

    @property
    def device(self) -> torch.device:
        return cast(torch.device, next(self.net.parameters()).device)

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, H] and bias [V] of the output layer. Raises PluginError if the network has no output layer."""
        found = self.family.output(self.base)
        if found is None:
            raise PluginError(
                f"role '{self.name}' has no output layer over tokens: its family is '{self.family.instance}'",
                "read one of its heads, or choose a model with log-probs",
            )
        return found

    @property
    def head_over_tokens(self) -> tuple[Tensor, Tensor | None]:
        """Like `head`, with a bias that keeps ids without a token from having any probability."""
        weight, bias = self.head
        if self.unknown is None:
            return weight, bias
        return weight, (weight.new_zeros(len(weight)) if bias is None else bias).masked_fill(self.unknown, NEVER)

    @property
    def vocabulary(self) -> int:
        """The number of token ids: of the output layer, if the network has one."""
        found = self.family.output(self.base)
        return len(found[0]) if found else self.family.vocabulary(self.base)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Within the block, autocast, adapter and recomputation are set as this role needs them."""
        if self.recompute:
            recomputing(self.base, torch.is_grad_enabled())
        with contextlib.ExitStack() as stack:
            if self.autocast is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype=self.autocast))
            if self.adapter_off:
                stack.enter_context(self.net.disable_adapter())
            yield

    @contextlib.contextmanager
    def without_autocast(self) -> Iterator[None]:
        """Within the block, the role computes in the type of its weights."""
        autocast, self.autocast = self.autocast, None
        try:
            yield
        finally:
            self.autocast = autocast

    def states(self, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """Hidden states of the sides asked for: `before` and `after` [N, H], `row` [B, H]; see `Family.states`."""
        self.family.require(sides, f"reading role '{self.name}'")
        compute = self.family.packed_states if self.packing else self.family.states
        with self.computing():
            return compute(self.base, batch, sides)

    def logits(self, batch: Batch) -> Tensor:
        """The network's own logits of the scored tokens [N, V], where the output layer is more than a product."""
        self.family.require({"before"}, f"a log-prob of role '{self.name}'")
        with self.computing():
            return self.family.logits(self.base, batch)

    def prefill(self, prompts: Sequence[Sequence[int]], filler: int) -> Decoding:
        """Read prompts of token ids to begin decoding; see `Family.prefill`."""
        self.family.require({"decodes"}, f"drawing from role '{self.name}'")
        fused = self.check_fused()
        with self.computing():
            return self.family.prefill(self.base, prompts, filler=filler, fused=fused)

    def step(self, state: Decoding, ids_B: Tensor) -> Tensor:
        """Read one more token per row; returns the logits of the next token, [B, V] float32."""
        with self.computing():
            return self.family.step(self.base, state, ids_B)

    def check_ids(self, batch: Batch, who: str) -> None:
        """Refuse token ids that the network does not have. who: the component that gave them, for the message."""
        most = self.vocabulary - 1
        for name, ids_BL, length_B in (
            ("prompt_ids_BP", batch.prompt_ids_BP, batch.prompt_length_B),
            ("token_ids_BT", batch.token_ids_BT, batch.length_B),
        ):
            inside_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device) < length_B[:, None]
            bad_BL = ((ids_BL < 0) | (ids_BL > most)) & inside_BL
            if bool(bad_BL.any()):
                row, at = (int(i) for i in bad_BL.nonzero()[0])
                raise PluginError(
                    f"{who}: {name} holds the token id {int(ids_BL[row, at])} in row {row}, but the model's ids go "
                    f"from 0 to {most}",
                    "give ids of ctx.tokenizer",
                )

    def check_fused(self) -> bool:
        """Whether output layer × state equals the network's own logits, tried once on a few tokens."""
        if self.fused is None:
            with self.computing():
                plain = self.family.is_product(self.base)
            self.fused = plain and self._is_product()
        return self.fused

    @torch.no_grad()
    def _is_product(self) -> bool:
        weight, bias = self.head
        ids = [i % len(weight) for i in range(max(2, min(16, self.context)))]
        some = Batch.of_ids([ids[:1]], [ids[1:]]).to(self.device)
        hidden = self.states(some, {"before"})["before"]
        if hidden.shape[-1] != weight.shape[-1]:  # more than one layer stands between the trunk and the logits
            return False
        product = nn.functional.linear(hidden.float(), weight.float(), None if bias is None else bias.float())
        own = self.logits(some).float()
        scale = float(own.abs().max())
        tolerance = 1e-4 if self.autocast is None and own.dtype == weight.dtype == torch.float32 else 3e-2
        return product.shape == own.shape and bool((product - own).abs().max() <= tolerance * scale)

    def add_head(self, name: str, make: Callable[[int], nn.Module], reads: Side, seed: tuple[object, ...]) -> None:
        self.family.require({reads}, f"head '{name}' of role '{self.name}'")
        if name not in self.heads:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(rng.key(*seed, "head", name))
                made = make(self.hidden_size)
            if name in self.brought:
                self._begin(name, made, self.brought[name])
            self.heads[name] = ReadHead(made, reads).to(self.device)

    def _begin(self, name: str, head: nn.Module, layer: nn.Linear) -> None:
        """Give a new head the weights of a layer; where the layer has no bias, that of the head is 0."""
        if not isinstance(head, nn.Linear) or head.weight.shape != layer.weight.shape:
            raise ExperimentError(
                f"the head '{name}' is not one linear layer, as the '{name}' of the model's folder is",
                f"name the built-in head: head: {name}",
            )
        with torch.no_grad():
            head.weight.copy_(layer.weight)
            if head.bias is not None:
                head.bias.copy_(torch.zeros_like(head.bias) if layer.bias is None else layer.bias)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name, tied ones once."""
        found = dict(self.net.named_parameters())
        heads = {f"heads.{name}": p for name, p in self.heads.named_parameters()}
        return {**found, **heads, **{f"own.{name}": p for name, p in self.own.items()}}

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.parameters().items() if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the model: parameters and persistent buffers."""
        own = self.net.state_dict()
        parameters = self.parameters()
        if self.adapter_off:  # what trains belongs to the policy that this role looks through
            parameters = {name: p for name, p in parameters.items() if not p.requires_grad}
        buffers = {name: b for name, b in self.net.named_buffers() if name in own}
        return {**{name: p.detach() for name, p in parameters.items()}, **buffers}

    def load_tensors(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Copy saved tensors into the model; every name and shape must match."""
        mine = self.tensors()
        wrong = [
            f"{name} {list(tensors[name].shape) if name in tensors else 'absent'} ≠ {list(mine[name].shape) if name in mine else 'absent'}"
            for name in sorted(
                mine.keys() ^ tensors.keys()
                | {n for n in mine.keys() & tensors.keys() if mine[n].shape != tensors[n].shape}
            )
        ]
        if wrong:
            raise CheckpointError(
                f"the architecture in {where} is not that of role '{self.name}': {'; '.join(wrong[:5])}",
                "build the model as in the checkpoint's experiment",
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                mine[name].copy_(tensor)

    def hash(self) -> str:
        return trees.hash_tensors(self.tensors())

    def freeze(self) -> Role:
        for parameter in self.parameters().values():
            parameter.requires_grad_(False)
        return self

    def copy(self, name: str) -> Role:
        """An independent copy without the heads."""
        made = Role(
            name,
            copy.deepcopy(self.net),
            self.family,
            autocast=self.autocast,
            adapter=self.adapter,
            recompute=self.recompute,
        )
        made.fused, made.unknown = self.fused, self.unknown
        return made

    def without_adapter(self, name: str) -> Role:
        """The same network with its adapter off: a reference that costs no memory."""
        made = Role(name, self.net, self.family, autocast=self.autocast, adapter=True, recompute=self.recompute)
        made.adapter_off = True
        made.fused, made.unknown = self.fused, self.unknown
        return made

    def save(self, folder: Path) -> str:
        """Write the model into a folder. Returns its hash."""
        folder.mkdir(parents=True, exist_ok=True)
        self.family.save_config(self.base, folder)
        trees.save_tree(folder, "model", self.tensors())  # model.safetensors, as transformers calls it
        about = {
            "role": self.name,
            "architecture": type(self.base).__name__,
            "trainable": sorted(self.trainable()),
            "heads": {name: cast(ReadHead, head).reads for name, head in self.heads.items()},
            "outputs": {name: names for name in self.heads if (names := self.outputs(name))},
            "hash": (digest := self.hash()),
        }
        if self.adapter and hasattr(self.net, "peft_config"):
            about["adapter"] = _plain(self.net.peft_config["default"])
        (folder / "role.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        return digest

    def outputs(self, head: str) -> tuple[str, ...]:
        """The names of a head's outputs; none of a head that has one."""
        return tuple(getattr(cast(ReadHead, self.heads[head]).inner, "names", ()))

    def exports_scores(self, head: str) -> bool:
        """Whether a head can be written as transformers' scores of a row: one linear number, or several with names, from the
        state after a token."""
        found = cast(ReadHead, self.heads[head]) if head in self.heads else None
        if found is None or not isinstance(found.inner, nn.Linear):
            return False
        plain = found.inner.out_features in (1, len(self.outputs(head)))
        return plain and found.reads == "after" and "scores" in self.family.sides

    def export_scores(self, head: str, pad: int | None, folder: Path) -> tuple[float, ...]:
        """Write a folder for AutoModelForSequenceClassification; adapters are merged. Returns the bias of each output, which
        transformers' class does not have; the folder's config.json keeps it."""
        layer = cast(nn.Linear, cast(ReadHead, self.heads[head]).inner)
        net = copy.deepcopy(self.net).merge_and_unload() if self.adapter else self.net
        bias = () if layer.bias is None else tuple(layer.bias.detach().tolist())
        self.family.export_scores(net, layer.weight.detach(), pad, folder, names=self.outputs(head), bias=bias)
        return bias

    def export_adapter(self, folder: Path, base: str | None) -> None:
        """Write the adapter alone, as peft reads it. base: where the base model is, for the adapter's config."""
        if not self.adapter:
            raise ExperimentError(
                f"role '{self.name}' has no adapter", "leave out --adapter, or train one: adapter: {lora: {rank: 8}}"
            )
        for config in self.net.peft_config.values():
            config.base_model_name_or_path = base
        self.net.save_pretrained(folder, safe_serialization=True)

    def export(self, folder: Path) -> None:
        """Write a folder that other programs can load, plain transformers for family `causal`; adapters are merged."""
        net = copy.deepcopy(self.net).merge_and_unload() if self.adapter else self.net
        self.family.export(net, folder)


def _plain(config: Any) -> dict[str, Any]:
    """peft's config as JSON, without where the base model was."""
    found = {**config.to_dict(), "base_model_name_or_path": None}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in found.items()}


def saved_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors that `Role.save` wrote; an earlier release called them weights."""
    return trees.load_tree(folder, "weights" if (folder / "weights.json").exists() else "model")


def recomputing(net: nn.Module, on: bool) -> None:
    """Switch recomputation in the backward pass on or off.

    transformers recomputes the modules that are in training mode, so these alone are put into it. Their parts stay in
    evaluation mode, as does the network: layers that drop out, noise of routers and random attention stay off.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    able = [module for module in net.modules() if getattr(module, "gradient_checkpointing", False)]
    layers = [module for module in able if isinstance(module, GradientCheckpointingLayer)]
    for module in layers or able:
        module.training = on
