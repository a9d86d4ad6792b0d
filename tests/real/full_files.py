"""A run of two steps on every shape of rows that users have, each in another container; `make real` prints the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))

from rows_of_users import SHAPES, Shape
from test_table import CONTAINERS, stored

import hookline
from shapes import build

PHASES: dict[str, dict[str, Any]] = {
    "answers": {"rollout": {"use": "dataset", "path": "mine"}, "update": "sft"},
    "labels": {"rollout": {"use": "dataset", "path": "mine", "label": "label"}, "update": "kto"},
    "preferences": {"rollout": {"use": "preferences", "path": "mine"}, "update": "dpo"},
    "prompts": {
        "rollout": {"use": "generate", "prompts": "mine", "max_new_tokens": 8, "samples_per_prompt": 4},
        "reward": {"use": "perplexity", "weight": -0.01},
        "update": "grpo",
    },
}
"""What rows are for → the phase that trains on them."""


def trained(root: Path, name: str, shape: Shape, container: str) -> str:
    """A line of the table."""
    folder = root / "files" / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    path = stored(shape, container, folder) if not (folder / container.rpartition(":")[2]).exists() else str(folder / container)
    phase = {**PHASES[shape.use], "name": "run", "steps": 2}
    phase["rollout"] = {**phase["rollout"], "rows": 2}
    phase["update"] = {"use": phase["update"], "lr": 1e-3}
    run = hookline.run(
        {
            "name": "files",
            "model": {"path": str(root / "folders" / "qwen2")},
            "data": {"mine": {"path": path, **({"shape": shape.named} if shape.named else {})}},
            "phases": [phase],
            "trackers": [],
        },
        out=folder / "run",
    )
    rows = run.rows()
    figure = "reward" if shape.use == "prompts" else "loss"
    values = " → ".join(f"{row['metrics'][figure]:.3g}" for row in (rows[0], rows[-1]))
    return f"| {name} | {container} | {phase['update']['use']} | {figure} {values} |"


def main(root: Path) -> None:
    if not (root / "folders" / "qwen2").exists():
        build("qwen2", root / "folders" / "qwen2")
    print("| shape | container | method | two steps |\n|---|---|---|---|")
    for number, (name, shape) in enumerate(SHAPES.items()):
        print(trained(root, name, shape, CONTAINERS[number % len(CONTAINERS)]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
