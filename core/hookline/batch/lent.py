"""What a hook is lent: batches, and the weights of models, which later hooks read too and which it must not change."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hookline.batch.encoded import Record, own
from hookline.batch.stages import Batch

__all__ = ["Lent", "checksum"]


class Lent:
    """Remembers what was lent, and says afterwards what has changed.

    torch counts changes of a tensor in place, but not those through `.numpy()` or `.data`, and nothing counts changes of
    records. `closely`: compare contents as well; this reads every byte once, so a run does it in its first steps.
    """

    def __init__(self, values: Iterable[Any], weights: Mapping[str, Sequence[Tensor]] | None = None, closely: bool = True):
        """values: of these, batches are watched. weights: tensors of each role, which are only read."""
        self.closely = closely
        """Whether contents are compared too."""
        self._settings = _settings()
        self._tensors: list[tuple[str, Tensor, int, int]] = []
        self._records: list[tuple[Sequence[Record], Sequence[Record]]] = []
        self._weights = {name: (tensors, _norms(tensors)) for name, tensors in (weights or {}).items()}
        self.lend(values)

    def lend(self, values: Iterable[Any]) -> None:
        """Watch further batches."""
        for batch in values:
            if isinstance(batch, Batch):
                for name, tensor in batch.tensors().items():
                    self._tensors.append((name, tensor, tensor._version, checksum(tensor) if self.closely else 0))
                if self.closely:
                    self._records.append((batch.records, [own(record) for record in batch.records]))

    def setting_changed(self) -> str:
        """Which of torch's settings for the whole process has changed, as a message names it; empty if none has."""
        now = _settings()
        return next((name for name, value in self._settings.items() if now[name] != value), "")

    def changed(self) -> str:
        """What has changed, as a message names it; empty if nothing has."""
        for name, tensor, version, before in self._tensors:
            if tensor._version != version or (self.closely and checksum(tensor) != before):
                return f"'{name}'"
        for records, kept in self._records:
            if any(differ(record, before) for record, before in zip(records, kept)):
                return "the dict of a row in 'records'"
        for name, (tensors, norms) in self._weights.items():
            if not torch.equal(_norms(tensors), norms):
                return f"the weights of '{name}'"
        return ""


def _settings() -> dict[str, object]:
    """torch's settings for the whole process."""
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "whether torch computes gradients": torch.is_grad_enabled(),
        "the number of torch's threads": torch.get_num_threads(),
    }


def differ(record: Record, before: Record) -> bool:
    """Whether a record has changed; False for contents that cannot be compared."""
    try:
        return bool(record != before)
    except Exception:
        return False


def checksum(tensor: Tensor) -> int:
    """A checksum of a tensor's bytes."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(raw.numpy().data) if raw.device.type == "cpu" else int(raw.sum())


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of each tensor; for integers a checksum."""
    found = [tensor.detach() for tensor in tensors]
    norms = iter(torch._foreach_norm([tensor for tensor in found if tensor.is_floating_point()]))
    each = [next(norms) if tensor.is_floating_point() else torch.tensor(checksum(tensor)) for tensor in found]
    return torch.stack([one.double().cpu() for one in each]) if each else torch.zeros(0)
