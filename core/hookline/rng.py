"""Counter-based randomness: a generator depends only on the key of its purpose, so no generator state has to be
saved."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator", "key", "uniform"]


def key(*ids: object) -> int:
    """A 63-bit seed from any ids (numbers and text), equal on every machine."""
    odd = next((i for i in ids if not isinstance(i, int | str | float)), None)
    if odd is not None:
        raise TypeError(f"the key of a random number holds a {type(odd).__name__}; use numbers and text")
    digest = hashlib.blake2b(repr(ids).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*ids: object) -> torch.Generator:
    """A new CPU generator that depends only on the ids."""
    return torch.Generator().manual_seed(key(*ids))


def uniform(seed: int, sample_B: torch.Tensor, counter: int | torch.Tensor) -> torch.Tensor:
    """One number in [0, 1) per sample, float64 [B], which depends only on (seed, sample id, counter).

    counter: one for all samples, or int64 [B].

    The draws of a row therefore do not depend on other rows, on the batch size or on how often the batch was drawn.
    The mixing is splitmix64 (Steele et al. 2014), in wrapping int64.
    """
    x = sample_B.to(torch.int64) * _signed(0x9E3779B97F4A7C15) + _mixed(seed, counter)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shift(x, shift)) * _signed(factor)
    x = x ^ _shift(x, 31)
    return _shift(x, 11).double() * 2.0**-53


def _mixed(seed: int, counter: int | torch.Tensor) -> int | torch.Tensor:
    if isinstance(counter, torch.Tensor):
        return (counter * _signed(0xD1B54A32D192ED03)) ^ _signed(seed)
    return _signed(seed ^ (counter * 0xD1B54A32D192ED03))


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift right of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
