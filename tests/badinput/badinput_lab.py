"""A small laboratory: tiny data, tiny experiments, and the command line in this process with what it said."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hookline.cli import main
from warm import Child, Warm

WORDS = ["open", "close", "read", "write", "file", "list", "value", "name", "return", "error", "string", "number"]
CLASSES = {
    2: ("ExperimentError", "UsageError", "HooklineError"),
    3: ("DataError", "ExperimentError"),
    4: ("CheckpointError",),
    5: ("PluginError",),
    6: ("NumbersError",),
}


@dataclass
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The lines under the sentence, where it lists several problems."""
        return [line.strip() for line in self.errors if line.startswith("  ")]

    @property
    def errors(self) -> list[str]:
        """The lines of the error itself; notes and progress stand before it."""
        lines = self.err.splitlines()
        start = next((i for i, line in enumerate(lines) if re.match(r"[A-Z]\w+Error: ", line)), len(lines))
        return lines[start:]

    @property
    def sentence(self) -> str:
        return self.errors[0] if self.errors else ""


@dataclass
class Lab:
    """One test's folder and everything one does in it."""

    folder: Path
    capture: Callable[[], tuple[str, str]]
    warm: Warm | None = None
    """Where its processes come from; a folder without one only makes experiments."""

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def rows(self, name: str, rows: list[dict[str, Any]]) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def sft(self, steps: int = 4, **update: Any) -> dict[str, Any]:
        """One phase of supervised learning, saved after every step."""
        return {
            "name": "tiny",
            "seed": 3,
            "threads": 1,
            "tokenizer": {"train": "bpe", "on": "texts.jsonl", "vocabulary": 280},
            "model": {"build": "gpt2", "layers": 1, "width": 32, "context": 64},
            "trackers": [],
            "phases": [
                {
                    "name": "sft",
                    "rollout": {"use": "dataset", "path": "pairs.jsonl", "rows": 4},
                    "update": {"use": "sft", "lr": 1e-3, **update},
                    "steps": steps,
                    "save": {"every": 1, "keep": 9},
                }
            ],
        }

    def rl(self, reward: Any = "length", steps: int = 3, **phase: Any) -> dict[str, Any]:
        """One phase of PPO on what a fresh model says."""
        made = self.sft()
        made["phases"] = [
            {
                "name": "rl",
                "rollout": {
                    "use": "generate",
                    "prompts": "pairs.jsonl",
                    "rows": 2,
                    "samples_per_prompt": 2,
                    "max_new_tokens": 4,
                },
                "reward": reward,
                "advantage": "gae",
                "update": {"use": "ppo", "lr": 1e-3},
                "steps": steps,
                "save": {"every": 1, "keep": 9},
                **phase,
            }
        ]
        return made

    def write(self, experiment: dict[str, Any] | str, name: str = "tiny.yaml") -> Path:
        path = self.folder / name
        text = experiment if isinstance(experiment, str) else yaml.safe_dump(experiment, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return path

    def plugin(self, source: str, name: str = "mine.py") -> str:
        path = self.folder / name
        path.write_text(source, encoding="utf-8")
        return f"./{name}"

    def hookline(self, *arguments: str | Path) -> Said:
        self.capture()
        code = main([str(a) for a in arguments])
        out, err = self.capture()
        assert "Traceback" not in err + out, err
        return Said(code, out, err)

    def run(self, experiment: dict[str, Any] | None = None, *more: str) -> Said:
        """`hookline run tiny.yaml --out run`."""
        path = self.write(experiment) if experiment is not None else self.folder / "tiny.yaml"
        return self.hookline("run", path, "--out", self.run_folder, *more)

    def plugin_run(self, source: str, experiment: dict[str, Any]) -> Said:
        return self.run(experiment, "-p", self.plugin(source))

    def process(self, *arguments: str | Path, prelude: str = "") -> Child:
        """The same in a process of its own."""
        code = f"{prelude}\nimport sys\nfrom hookline.cli import main\nsys.exit(main(sys.argv[1:]))"
        return self.warm.start("-c", code, *arguments, cwd=self.folder)

    def contents(self, *but: str) -> dict[str, bytes]:
        """Every file of the run, byte for byte, except those named."""
        return {
            path.relative_to(self.run_folder).as_posix(): path.read_bytes()
            for path in sorted(self.run_folder.rglob("*"))
            if path.is_file() and path.name not in but
        }

    def weights(self, phase: str = "sft") -> bytes:
        return (self.run_folder / "phases" / phase / "model" / "model.safetensors").read_bytes()

    def checkpoints(self) -> list[Path]:
        return sorted((self.run_folder / "checkpoints").glob("*-*"))


def refused(said: Said, code: int, *words: str, problems: int = 0, frames: bool = False) -> Said:
    """One sentence of the right class, with cause and hint, naming the user's own things; nothing else on stderr."""
    assert said.code == code, (said.code, said.err)
    kind, _, rest = said.sentence.partition(": ")
    assert kind in CLASSES[code], said.err
    text = " ".join(said.errors)
    for word in words:
        assert word in text, (word, said.err)
    if problems:
        assert len(said.problems) == problems, said.err
        assert len(said.errors) == 1 + problems, said.err
    else:
        cause, arrow, hint = rest.partition(" → ")
        assert arrow, f"no hint: {said.err}"
        assert len(cause) > 10, said.err
        assert len(hint) > 3, said.err
        assert frames or len(said.errors) == 1, said.err
    assert all(line.isprintable() for line in said.errors), said.err
    return said


def changed(experiment: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value set; `phases.0.steps`."""
    made = copy.deepcopy(experiment)
    *outer, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = made
    for part in outer:
        place = place[part]
    place[last] = value
    return made
