"""What a call costs the host: our functions on a few numbers, beside an empty op of the same schema, registered the same way.

The empty op takes the same arguments, returns tensors of the same shapes, and saves the same tensors for a backward pass that calls
a second empty op. What ours takes beyond it are checks of the arguments, the choice of the kernel, and its arithmetic.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from hookline.testing.bench.child import in_child, write

__all__ = ["host_costs"]

Row = dict[str, Any]
CALLS, ROUNDS = 10, 400


def host_costs() -> list[Row]:
    """A row per op: {op, what, first_us, us, empty_first_us, empty_us, low, high, ratio}, measured in a process of its own.

    us: microseconds of a call, the best of `ROUNDS` times `CALLS` calls, in turns; ratio: of the empty op; low, high: the quartiles
    of the ratio over the turns. first_us: the first call of the process.
    """
    found = in_child(
        [sys.executable, "-m", "hookline.testing.bench.host"], "the measurement of host costs", "measure again"
    )
    rows: list[Row] = found["rows"]
    return rows


def _empty_ops() -> tuple[Any, Any]:
    """Empty ops with the schemas of `token_stats` and `gae`, and of the former's backward."""
    import torch

    from hookline.kernels import ops, reference

    library = torch.library.Library("hookline_empty", "DEF")  # type: ignore[no-untyped-call]

    def define(schema: str, compute: Callable[..., Any]) -> None:
        name = schema.split("(")[0]
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
        library.impl(name, compute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"hookline_empty::{name}", compute, lib=library)

    results: dict[str, Callable[..., Any]] = {
        "token_stats": lambda logits, ids, *_: logits.new_empty(reference.ROWS, *ids.shape, dtype=torch.float32),
        "token_stats_backward": lambda upstream, stats, logits, *_: torch.empty_like(logits),
        "gae": lambda rewards, *_: rewards.new_empty(2, *rewards.shape),
    }
    for name in results:
        schema = str(getattr(torch.ops.hookline, name).default._schema).removeprefix("hookline::")
        define(schema, results[name])
    empty = torch.ops.hookline_empty

    def backward(ctx: Any, upstream: Any) -> tuple[Any, ...]:
        stats, logits, *tokens = ctx.saved_tensors
        rest = (*tokens, ctx.temperature, ctx.softcap, ctx.want)
        return (empty.token_stats_backward(upstream, stats, logits, *rest, False), *[None] * 7)

    torch.library.register_autograd(
        "hookline_empty::token_stats", backward, setup_context=ops._save_token_stats, lib=library
    )
    return library, empty


def _pairs(empty: Any) -> Iterator[tuple[str, str, Callable[[], Any], Callable[[], Any]]]:
    """(op, what, our call, the empty call)."""
    import torch

    from hookline.kernels import gae, token_stats

    logits, ids = torch.randn(4, 16), torch.randint(16, (4,))
    leaf, one = logits.clone().requires_grad_(), torch.ones(4)
    rewards, values, mask = torch.randn(2, 8), torch.randn(2, 8), torch.ones(2, 8, dtype=torch.bool)

    def of_empty(x: Any) -> Any:
        return empty.token_stats(x, ids, None, None, 1.0, 0.0, 1, "new")[0]

    yield "gae", "fwd", lambda: gae(rewards, values, mask=mask, gamma=0.99), (
        lambda: empty.gae(rewards, values, mask, 0.99, 0.95, None, None).unbind(0)
    )
    yield "token_stats", "fwd", lambda: token_stats(logits, ids).logprobs, lambda: of_empty(logits)
    yield "token_stats", "fwd+bwd", (
        lambda: torch.autograd.grad(token_stats(leaf, ids)["logprobs"], leaf, one)
    ), lambda: torch.autograd.grad(of_empty(leaf), leaf, one)


def measure() -> list[Row]:
    """The rows of `host_costs`, in this process, with one thread."""
    import torch

    torch.set_num_threads(1)
    library, empty = _empty_ops()
    rows = []
    for op, what, ours, theirs in _pairs(empty):
        empty_first, first = _seconds(theirs, 1), _seconds(ours, 1)
        turns = [(_seconds(ours, CALLS), _seconds(theirs, CALLS)) for _ in range(ROUNDS)]
        ratios = sorted(a / b for a, b in turns)
        best, empty_best = (min(column) for column in zip(*turns))
        rows.append(
            {"op": op, "what": what, "first_us": first * 1e6, "us": best * 1e6, "empty_first_us": empty_first * 1e6}
            | {"empty_us": empty_best * 1e6, "ratio": best / empty_best}
            | {"low": ratios[ROUNDS // 4], "high": ratios[-1 - ROUNDS // 4]}
        )
    del library
    return rows


def _seconds(call: Callable[[], Any], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


if __name__ == "__main__":
    write({"rows": measure()}, sys.argv[1])
