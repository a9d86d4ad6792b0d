"""Low-rank adaptation (Hu et al. 2021): train W + (α/r)·BA with W frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from pydantic import Field, model_validator

import hookline
from hookline import Adapter, ExperimentError, LocalPath


class LoRA(Adapter):
    """peft's LoRA on every linear layer of the trunk; the reference is the same model with the adapter off."""

    class Config(hookline.Config):
        rank: int = Field(8, ge=1)
        """Rank of the update matrix. Larger learns more and costs more memory."""
        alpha: float | None = Field(None, gt=0)
        """Scale of the update matrix; default: twice the rank."""
        modules: tuple[str, ...] | None = None
        """Layers to adapt by name; default: all linear layers except the output."""
        modules_to_save: tuple[str, ...] = ()
        """Modules to train whole beside the adapter, by name, e.g. the output layer; they are saved with it."""
        rslora: bool = False
        """Scale the update by α/√r instead of α/r, so that a large rank learns as fast as a small one (Kalajdzievski 2023)."""
        dora: bool = False
        """Train the length of each row of W apart from its direction (Liu et al. 2024); slower, often better at a small rank."""
        begin: LocalPath | None = Field(None, alias="from")
        """Go on with the adapter in this folder, as peft saves it; rank and the other options are then those of the folder."""

        @model_validator(mode="after")
        def _of_the_folder(self) -> Self:
            own = sorted(self.model_fields_set - {"begin"}) if self.begin else []
            if own:
                raise ValueError(f"`from` goes on with the adapter in {self.begin}, which has its own `{own[0]}`; leave `{own[0]}` out")
            return self

        @model_validator(mode="before")
        @classmethod
        def _no_dropout(cls, value: Any) -> Any:
            for word in ("dropout", "lora_dropout"):
                if isinstance(value, Mapping) and word in value:
                    raise ValueError(
                        f"`{word}` is not an option: dropout is always off, so that a gradient does not depend on how rows "
                        "are split, and log-probs of training are those of sampling; leave it out"
                    )
            return value

    @property
    def folder(self) -> str | None:
        begin: str | None = self.config.begin
        return begin

    def attach(self, net: Any) -> Any:
        if self.config.begin:
            return hookline.load_adapter(net, self.config.begin)
        from peft import LoraConfig, get_peft_model

        c = self.config
        layers = [name for name, module in net.named_modules() if getattr(module, "weight", torch.empty(0)).dim() == 2]
        for wanted in c.modules or ():
            if not any(name == wanted or name.endswith(f".{wanted}") for name in layers):
                raise ExperimentError(
                    f"{self.instance}.modules: the model has no linear layer '{wanted}' to adapt",
                    f"its layers are: {', '.join(sorted({name.rpartition('.')[2] for name in layers}))}",
                )
            self._check_untied(net, "modules", wanted)
        whole = [name for wanted in c.modules_to_save for name in self._whole(net, wanted)]
        for name in whole:
            for wanted in c.modules or ():
                if f".{name}".endswith(f".{wanted}"):
                    raise ExperimentError(
                        f"{self.instance}: '{wanted}' is in `modules` and in `modules_to_save`; a layer is adapted or trained whole",
                        "keep it in one of the two",
                    )
        return get_peft_model(
            net,
            LoraConfig(
                r=c.rank,
                lora_alpha=c.alpha or 2 * c.rank,
                lora_dropout=0.0,
                bias="none",
                task_type="CAUSAL_LM" if net.get_output_embeddings() is not None else None,  # a reward model has none
                use_rslora=c.rslora,
                use_dora=c.dora,
                target_modules=list(c.modules) if c.modules else "all-linear",
                modules_to_save=whole or None,
                exclude_modules=whole or None,
                fan_in_fan_out=type(net).__name__.startswith("GPT2"),
            ),
        )

    def _whole(self, net: Any, wanted: str) -> list[str]:
        """The full names of the modules that one word of `modules_to_save` means: peft itself takes any name that ends so."""
        able = {
            name: module
            for name, module in net.named_modules()
            if name
            and not isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict)
            and any(True for _ in module.parameters(recurse=False))
        }
        found = [name for name in able if name == wanted or name.endswith(f".{wanted}")]
        if not found:
            raise ExperimentError(
                f"{self.instance}.modules_to_save: the model has no module '{wanted}' with weights of its own",
                f"its modules are: {', '.join(sorted({name.rpartition('.')[2] for name in able}))}",
            )
        self._check_untied(net, "modules_to_save", wanted)
        return found

    def _check_untied(self, net: Any, option: str, wanted: str) -> None:
        """Refuse a layer whose weight is another layer's too: the update would reach one, merging would change both."""
        owners: dict[int, list[str]] = {}
        for name, module in net.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.nn.Parameter):
                owners.setdefault(id(weight), []).append(name)
        for names in owners.values():
            for name in names:
                if len(names) > 1 and (name == wanted or name.endswith(f".{wanted}")):
                    others = ", ".join(f"'{other}'" for other in names if other != name)
                    raise ExperimentError(
                        f"{self.instance}.{option}: the layer '{wanted}' shares its weight with {others}, so that an exported "
                        "model would not be the one that was trained",
                        "leave the layer out, or use a model whose embeddings are not tied",
                    )
