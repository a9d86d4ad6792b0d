"""What an update costs with the fused path and with logits in memory: time and peak memory of the same training step.

The GPT-2 trunk is tiny, so that the vocabulary dominates. `fused` is what every algorithm's `mb.stats` does; `materialised`
is the plain torch form: the model's own logits, log_softmax, gather. Loss, clipping and AdamW are the same lines, and loss
and gradient norm must agree. Each measurement runs in its own process, because peak memory is measured per process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from hookline.errors import NumbersError
from hookline.testing.bench.child import in_child, peak_bytes, write

__all__ = ["PATHS", "bench_update", "measure"]


PATHS = ("materialised", "fused")
VOCABULARIES, QUICK_VOCABULARIES = (8_192, 32_000, 151_936), (2_048, 131_072)
ROWS, PROMPT, RESPONSE, LAYERS, WIDTH = 8, 16, 112, 2, 256
CHILDREN, STEPS = 2, 5
Row = dict[str, Any]


def bench_update(
    quick: bool = False, *, tell: Callable[[str, Any], None] = lambda event, value: None
) -> dict[str, Any]:
    """{"machine", "quick", "rows"}; tell(event, value) is called with "machine", then with "row" for each row of `measure`.

    Raises NumbersError as `measure` does.
    """
    import torch

    from hookline.testing.bench.measure import machine

    found: dict[str, Any] = {"machine": machine(torch.device("cpu")), "quick": quick, "rows": []}
    tell("machine", found["machine"])
    for row in measure(quick):
        found["rows"].append(row)
        tell("row", row)
    return found


def measure(quick: bool = False) -> Iterator[Row]:
    """A row per vocabulary and path: {vocabulary, tokens, path, ms, ms_low, ms_high, peak_mb, beyond_mb, logits_mb}.

    `peak_mb` is the process's largest resident set; `beyond_mb` is `peak_mb` without the process before its first step, the
    gradients and AdamW's two moments. Raises NumbersError if the two paths do not give the same update.
    """
    for vocabulary in QUICK_VOCABULARIES if quick else VOCABULARIES:
        found = {path: [] for path in PATHS}  # type: dict[str, list[Row]]
        for _ in range(1 if quick else CHILDREN):
            for path in PATHS:
                found[path].append(_in_child(path, vocabulary))
        one, other = (found[path][0] for path in PATHS)
        for figure in ("loss", "gradient_norm"):
            if abs(one[figure] - other[figure]) > 1e-4 * abs(one[figure]):
                raise NumbersError(
                    f"the fused path's {figure} is {other[figure]:.7g}, that of materialised logits {one[figure]:.7g}",
                    "run `hookline bench kernels` to see which kernel differs",
                )
        for path in PATHS:
            best = {key: min(row[key] for row in found[path]) for key in ("ms", "ms_low", "peak_mb", "beyond_mb")}
            yield found[path][0] | best | {"ms_high": max(row["ms_high"] for row in found[path])}


def _in_child(path: str, vocabulary: int) -> Row:
    return in_child(
        [sys.executable, "-m", "hookline.testing.bench.update", path, str(vocabulary)],
        f"the update with {path} logits and a vocabulary of {vocabulary} tokens", "use --quick or a machine with more memory",
    )  # fmt: skip


def _step(path: str, vocabulary: int) -> tuple[Any, Callable[[], tuple[float, float]]]:
    """The model, and one update of it on random tokens: the loss and the gradient's norm."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from hookline.batch.stages import Batch
    from hookline.models.load import family_of
    from hookline.models.role import Role
    from hookline.training.statistics import forward

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=PROMPT + RESPONSE,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    role = Role("policy", GPT2LMHeadModel(config), family_of(None))
    batch = Batch(
        prompt_ids_BP=torch.randint(vocabulary, (ROWS, PROMPT)),
        prompt_length_B=torch.full((ROWS,), PROMPT),
        token_ids_BT=torch.randint(vocabulary, (ROWS, RESPONSE)),
        length_B=torch.full((ROWS,), RESPONSE),
        mask_BT=torch.ones(ROWS, RESPONSE, dtype=torch.bool),
        group_B=torch.arange(ROWS),
        sample_B=torch.arange(ROWS),
        records=({},) * ROWS,
        decode=lambda ids: "",
    )
    advantage_BT = torch.randn(ROWS, RESPONSE)
    optimiser = torch.optim.AdamW(role.net.parameters(), lr=1e-4)

    def fused() -> torch.Tensor:
        return forward(role, batch, ("logprobs",))["logprobs"]

    def materialised() -> torch.Tensor:
        ids_BL = torch.cat([batch.prompt_ids_BP, batch.token_ids_BT], 1)
        logits_BTV = role.net(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False).logits
        logits_BTV = logits_BTV[:, PROMPT - 1 : -1]
        return torch.log_softmax(logits_BTV.float(), -1).gather(-1, batch.token_ids_BT[..., None])[..., 0]

    logprobs = fused if path == "fused" else materialised

    def step() -> tuple[float, float]:
        optimiser.zero_grad()
        loss = -(logprobs() * advantage_BT).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(role.net.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach()), float(norm)

    return role.net, step


def main(path: str, vocabulary: str, written: str) -> None:
    from hookline.testing.bench.measure import quantile

    net, step = _step(path, int(vocabulary))
    state = 3 * sum(p.nbytes for p in net.parameters())
    before = _resident()
    loss, norm = step()
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    peak = peak_bytes()
    row = {
        "vocabulary": int(vocabulary),
        "tokens": ROWS * RESPONSE,
        "path": path,
        "ms": min(times) * 1000,
        "ms_low": quantile(times, 0.25) * 1000,
        "ms_high": quantile(times, 0.75) * 1000,
        "peak_mb": peak / 1e6,
        "beyond_mb": (peak - before - state) / 1e6,
        "logits_mb": ROWS * RESPONSE * int(vocabulary) * 4 / 1e6,
        "loss": loss,
        "gradient_norm": norm,
    }
    write(row, written)


def _resident() -> int:
    """Resident memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(*sys.argv[1:])
