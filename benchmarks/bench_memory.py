"""How a GRPO step's memory grows: answers of 512 and of 4 096 tokens in groups of 8 and of 64, each step in a process of its own.

    python benchmarks/bench_memory.py benchmarks/memory-cpu.json

The network is that of `hookline bench step`, but smaller, so that what grows with tokens × vocabulary could not hide. Each row
names what the logits of all answers would take in float32.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hookline.testing import in_child
from hookline_plugins.commands.bench_step import Workload, made

LONG, GROUPS, VOCABULARIES = (512, 4096), (8, 64), (8_192, 32_768)
SMALL: dict[str, Any] = {"layers": 2, "width": 64, "prompts": 1, "steps": 1}
Row = dict[str, Any]


def memory(
    long: Sequence[int] = LONG,
    groups: Sequence[int] = GROUPS,
    vocabularies: Sequence[int] = VOCABULARIES,
    tell: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """A row per step: {vocabulary, group, new_tokens, tokens, peak_mb, logits_mb}, in MiB."""
    rows = []
    for vocabulary in vocabularies:
        for group in groups:
            for new in long:
                with tempfile.TemporaryDirectory() as kept:
                    work = made(
                        Workload(vocabulary=vocabulary, group=group, new_tokens=new, **SMALL), Path(kept) / "model"
                    )
                    given = Path(kept) / "work.json"
                    given.write_text(json.dumps(asdict(work)), encoding="utf-8")
                    step = [sys.executable, "-m", "hookline_plugins.commands.bench_step", str(given)]
                    found = in_child(step, f"a step of {group} answers of {new} tokens", "use a machine with more memory")
                tokens = group * new
                row = {"vocabulary": vocabulary, "group": group, "new_tokens": new, "tokens": tokens}
                rows.append(row | {"peak_mb": found["peak_mb"], "logits_mb": tokens * vocabulary * 4 / 2**20})
                tell(rows[-1])
    return rows


def main() -> None:
    def told(row: Row) -> None:
        figures = f"{row['peak_mb']:10.0f} MiB {row['logits_mb']:10.0f} MiB of logits"
        print(f"{row['vocabulary']:>8} {row['group']:>4} x {row['new_tokens']:>5} {figures}", flush=True)

    rows = memory(tell=told)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps({"workload": SMALL, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
