"""What a network of transformers is tried on when it is loaded: a few tokens show how it computes, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hookline.errors import ExperimentError, cause
from hookline.models.scores import SCORE

__all__ = ["compare_scores", "refuse_later_tokens", "returns_its_outputs"]


@torch.no_grad()
def compare_scores(net: Any, states: Callable[[Tensor], Tensor], folder: str | Path) -> None:
    """Refuse a network whose class does not score a row of plain tokens as its score layer does the row's last state.

    states: from ids [1, L] to the trunk's states [1, L, H].
    """
    pad = getattr(net.config.get_text_config(), "pad_token_id", None)
    ids_L = [i for i in range(net.get_input_embeddings().num_embeddings) if i != pad][-6:]
    ids_BL = torch.tensor([ids_L], device=next(net.parameters()).device)
    layer = getattr(net, SCORE, None)
    if not isinstance(layer, nn.Linear):
        return  # refused where it is taken
    own = net(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False).logits[0].float()
    ours = layer(states(ids_BL)[0, -1]).float()
    exact = all(p.dtype == torch.float32 for p in net.parameters())
    if own.shape != ours.shape or bool((own - ours).abs().max() > (1e-4 if exact else 3e-2) * own.abs().max().clamp(min=1)):
        raise ExperimentError(
            f"the scores of {folder} are not '{SCORE}' × the last state: {type(net).__name__} gives {own.tolist()} to a text, "
            f"not {ours.tolist()}",
            "use a reward model whose class has one linear score",
        )


def refuse_later_tokens(net: Any, read: Callable[..., Tensor], folder: str | Path, vocabulary: int) -> None:
    """Refuse a network that reads a row from both sides. read: gives an output for each token, [B, L, …]."""
    try:
        later = _sees_later_tokens(net, read, vocabulary)
    except torch.OutOfMemoryError:
        raise
    except Exception as err:
        raise ExperimentError(
            f"the model in {folder} cannot read a row of tokens: {cause(err)[:200]}",
            "use a model that predicts the next token of a text and needs nothing else",
        ) from err
    if later:
        raise ExperimentError(
            f"the model in {folder} sees later tokens: {type(net).__name__} reads a row from both sides, so it predicts "
            "no next token",
            "use a model that reads from left to right",
        )


@torch.no_grad()
def _sees_later_tokens(net: Any, read: Callable[..., Tensor], vocabulary: int) -> bool:
    """Whether what the network computes for a row's tokens depends on the row's last token.

    The tokens are from the middle of the vocabulary: the first ones are often padding, which some networks count.
    """
    at_L = torch.arange(6, device=next(net.parameters()).device)
    rows_BL = (vocabulary // 2 + at_L)[None].repeat(2, 1) % vocabulary
    rows_BL[1, -1] = (rows_BL[0, -1] + 1) % vocabulary
    ones_1L = torch.ones_like(at_L)[None]
    one, other = (
        read(input_ids=row[None], attention_mask=ones_1L, use_cache=False)[0, :-1].float() for row in rows_BL
    )
    exact = all(p.dtype == torch.float32 for p in net.parameters())
    return bool((one - other).abs().max() > (1e-5 if exact else 1e-2) * one.abs().max())


LARGE = 1e4
"""Logits far beyond every cap in use, and exact enough in half precision."""


@torch.no_grad()
def returns_its_outputs(net: Any, layer: Any) -> bool:
    """Whether the logits are the output layer's outputs, also where these are large: not capped, scaled or cut off.

    The layer's outputs are replaced by a ramp for one call, so the answer does not depend on how far the weights have
    been trained.
    """
    ramp: list[Tensor] = []

    def replaced(module: Any, given: Any, out_BLV: Tensor) -> Tensor:
        ramp.append(torch.linspace(-LARGE, LARGE, out_BLV.shape[-1], device=out_BLV.device).to(out_BLV.dtype))
        return ramp[-1].expand_as(out_BLV).contiguous()

    ids_BL = torch.zeros(1, 1, dtype=torch.long, device=next(net.parameters()).device)
    handle = layer.register_forward_hook(replaced)
    try:
        found_V = net(input_ids=ids_BL, use_cache=False).logits[0, -1]
    finally:
        handle.remove()
    return len(ramp) == 1 and found_V.shape == ramp[0].shape and torch.allclose(found_V.float(), ramp[0].float(), 1e-3)
