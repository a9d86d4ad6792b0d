"""A model in its role: the network, the heads on its trunk, and which of it learns."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from hookline import rng
from hookline.errors import CheckpointError
from hookline.storage import trees

__all__ = ["Role"]


Reads = Literal["before", "after"]


class ReadHead(nn.Module):
    """A head on a trunk, and whether it reads the state before or after a token."""

    def __init__(self, inner: nn.Module, reads: Reads) -> None:
        super().__init__()
        self.inner = inner
        self.reads = reads

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.inner(hidden.float())
        return cast(Tensor, out.squeeze(-1) if out.shape[-1] == 1 and out.dim() == hidden.dim() else out)


class Role:
    """One model: a transformers network, the heads on its trunk, and which of it learns."""

    def __init__(
        self,
        name: str,
        net: Any,
        *,
        autocast: torch.dtype | None = None,
        adapter: bool = False,
        recompute: bool = False,
    ) -> None:
        self.name = name
        self.net = net
        self.heads = nn.ModuleDict()
        self.autocast = autocast
        self.adapter = adapter
        self.recompute = recompute
        self.adapter_fresh = False
        """True when the adapter has not been trained by an earlier phase, so that switching it off gives the phase's start."""
        self.adapter_off = False
        self.version = 0
        self.fused: bool | None = None
        """True when trunk × head is the model's own logits; None until it was checked."""
        net.eval()

    @property
    def base(self) -> Any:
        """The transformers model itself, below any adapter."""
        return self.net.get_base_model() if self.adapter else self.net

    @property
    def config(self) -> Any:
        return self.base.config

    @property
    def context(self) -> int:
        """Most positions the model takes."""
        return int(
            getattr(self.config, "max_position_embeddings", 0) or getattr(self.config, "n_positions", 0) or 1 << 30
        )

    @property
    def hidden_size(self) -> int:
        return int(self.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return cast(torch.device, next(self.net.parameters()).device)

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, H] and bias [V] of the output layer."""
        layer = self.base.get_output_embeddings()
        return layer.weight, getattr(layer, "bias", None)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Autocast, adapter and recomputation as this role wants them."""
        if self.recompute:  # transformers recomputes in training mode only; nothing here drops out
            self.base.train(torch.is_grad_enabled())
        with contextlib.ExitStack() as stack:
            if self.autocast is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype=self.autocast))
            if self.adapter_off:
                stack.enter_context(self.net.disable_adapter())
            yield

    def trunk(self, **inputs: Any) -> Any:
        """The network without its output layer; `.last_hidden_state` is [B, L, H]."""
        with self.computing():
            return getattr(self.base, self.base.base_model_prefix)(**inputs)

    def logits(self, ids_BL: Tensor) -> Tensor:
        """The model's own logits [B, L, V], for models whose output layer is more than a product."""
        with self.computing():
            return cast(
                Tensor, self.base(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False).logits
            )

    def check_fused(self, ids_BL: Tensor) -> bool:
        """Whether trunk × head equals the model's own logits, tried once on a few tokens."""
        if self.fused is None:
            beyond = ("final_logit_softcapping", "logit_scale", "logits_scaling")
            if any(getattr(self.config, name, None) not in (None, 1, 1.0) for name in beyond):
                self.fused = False
                return False
            with torch.no_grad():
                ids = ids_BL[:1, :16]
                weight, bias = self.head
                hidden = self.trunk(input_ids=ids, use_cache=False).last_hidden_state
                product = nn.functional.linear(hidden.float(), weight.float(), None if bias is None else bias.float())
                own = self.logits(ids).float()
                scale = float(own.abs().max())
                tolerance = 1e-4 if self.autocast is None and own.dtype == weight.dtype == torch.float32 else 3e-2
                self.fused = product.shape == own.shape and bool((product - own).abs().max() <= tolerance * scale)
        return self.fused

    def add_head(self, name: str, make: Callable[[int], nn.Module], reads: Reads, seed: tuple[object, ...]) -> None:
        if name not in self.heads:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(rng.key(*seed, "head", name))
                self.heads[name] = ReadHead(make(self.hidden_size), reads).to(self.device)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name, tied ones once."""
        found = dict(self.net.named_parameters())
        return {**found, **{f"heads.{name}": p for name, p in self.heads.named_parameters()}}

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.parameters().items() if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """All that makes the model: parameters and persistent buffers."""
        own = self.net.state_dict()
        parameters = self.parameters()
        if self.adapter_off:  # what trains belongs to the policy that this role looks through
            parameters = {name: p for name, p in parameters.items() if not p.requires_grad}
        buffers = {name: b for name, b in self.net.named_buffers() if name in own}
        return {**{name: p.detach() for name, p in parameters.items()}, **buffers}

    def load_tensors(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Put saved tensors in place; every name and shape must fit."""
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
                f"{where} holds another architecture than role '{self.name}': {'; '.join(wrong[:5])}",
                "build the model as the checkpoint's experiment did",
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
        """An independent copy, heads left behind."""
        made = Role(
            name, copy.deepcopy(self.net), autocast=self.autocast, adapter=self.adapter, recompute=self.recompute
        )
        made.fused = self.fused
        return made

    def without_adapter(self, name: str) -> Role:
        """The same network with its adapter off: a reference that costs no memory."""
        made = Role(name, self.net, autocast=self.autocast, adapter=True, recompute=self.recompute)
        made.adapter_off = True
        made.fused = self.fused
        return made

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config.to_json_file(folder / "config.json")
        trees.save_tree(folder, "weights", self.tensors())
        about = {
            "role": self.name,
            "architecture": type(self.base).__name__,
            "trainable": sorted(self.trainable()),
            "heads": {name: cast(ReadHead, head).reads for name, head in self.heads.items()},
            "hash": self.hash(),
        }
        (folder / "role.json").write_text(json.dumps(about, indent=1), encoding="utf-8")

    def export(self, folder: Path) -> None:
        """A plain transformers folder; adapters are merged in."""
        net = copy.deepcopy(self.net).merge_and_unload() if self.adapter else self.net
        net.save_pretrained(folder, safe_serialization=True)
