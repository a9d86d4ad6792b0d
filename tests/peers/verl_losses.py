"""PPO's losses as verl computes them, for fixed log-probs, values, advantages and masks, as JSON.

Arguments: the folder of an unpacked verl (`pip download verl==0.9.1 --no-deps --no-binary :all:`; Apache License 2.0), the file to write.
verl imports ray and more, so only the named functions are read from its files, and run unchanged; none of their text is kept here.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ROWS, TOKENS, SEED = 4, 6, 7
SETTINGS: list[dict[str, Any]] = [
    {"low": 0.2, "high": 0.2, "value": 0.2, "over": "token-mean"},
    {"low": 0.1, "high": 0.35, "value": 0.5, "over": "token-mean"},
    {"low": 0.2, "high": 0.28, "value": 0.2, "over": "seq-mean-token-mean"},
]


def named(path: Path, names: set[str], known: dict[str, Any]) -> SimpleNamespace:
    """Functions of a file by name, without its imports and decorators."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    module.body = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name in names]
    for node in module.body:
        node.decorator_list = []  # type: ignore[attr-defined]
    scope = {**known, "torch": torch}
    exec(compile(module, str(path), "exec", flags=__import__("__future__").annotations.compiler_flag), scope)
    return SimpleNamespace(**{name: scope[name] for name in names})


def inputs() -> dict[str, torch.Tensor]:
    """Ratios from .4 to 2.5, advantages of both signs, values on both sides of the clip; one row has a hole in its mask."""
    generator = torch.Generator().manual_seed(SEED)

    def spread(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(ROWS, TOKENS, generator=generator)

    mask = torch.ones(ROWS, TOKENS)
    mask[1, 2:] = mask[2, 4:] = mask[3, 1] = 0
    old, values = spread(-4, -1), spread(-1, 1)
    return {
        "old_log_prob": old, "log_prob": old + spread(-0.9, 0.9), "advantages": spread(-2, 2), "response_mask": mask,
        "values": values, "vpreds": values + spread(-0.8, 0.8), "returns": spread(-1, 1),
    }  # fmt: skip


def main(source: Path, out: Path) -> None:
    home = source / "verl"
    functional = named(home / "utils/torch_functional.py", {"masked_sum", "masked_mean", "clip_by_value"}, {})
    wanted = {"agg_loss", "compute_policy_loss_vanilla", "compute_value_loss"}
    verl = named(home / "trainer/ppo/core_algos.py", wanted, {"verl_F": functional, "AlgoConfig": ()})
    given = inputs()
    found = []
    for setting in SETTINGS:
        config = SimpleNamespace(
            clip_ratio=0.2, clip_ratio_low=setting["low"], clip_ratio_high=setting["high"], global_batch_info={},
            get=lambda name, default: default,
        )  # fmt: skip
        log_prob, vpreds = given["log_prob"].clone().requires_grad_(), given["vpreds"].clone().requires_grad_()
        policy, figures = verl.compute_policy_loss_vanilla(
            given["old_log_prob"], log_prob, given["advantages"], given["response_mask"], setting["over"], config
        )
        value, clipped = verl.compute_value_loss(
            vpreds, given["returns"], given["values"], given["response_mask"], setting["value"], setting["over"]
        )
        (policy + value).backward()
        assert figures["actor/pg_clipfrac_lower"] == 0  # the bound of dual clip (3) is not reached
        assert 0.1 < figures["actor/pg_clipfrac"] < 0.9
        assert 0.05 < float(clipped) < 0.95
        losses = {"policy_loss": policy.item(), "value_loss": value.item()}
        slopes = {"d_log_prob": log_prob.grad.tolist(), "d_vpreds": vpreds.grad.tolist()}
        found.append({**setting, **losses, **slopes})
    files = [home / "utils/torch_functional.py", home / "trainer/ppo/core_algos.py"]
    stored = {
        "verl": (home / "version/version").read_text().strip(), "torch": torch.__version__, "license": "Apache-2.0",
        "sha256": {str(file.relative_to(source)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "inputs": {name: tensor.tolist() for name, tensor in given.items()}, "settings": found,
    }  # fmt: skip
    lines = [f'"{name}": {json.dumps(value)}' for name, value in stored.items()]
    out.write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
