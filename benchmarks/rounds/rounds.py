"""People in the loop over three rounds, with every part as a process of its own, and what came of it: docs/rounds.md.

    make rounds                       a fresh seed; about half an hour on two idle cores, with the repetition
    make rounds ARGS='--seeds 5 6'    other seeds
    make rounds ARGS='--small'        few answers and steps of a tiny model: it checks the mechanism, and writes no page

For each seed: the demo's sft model; then `hookline run`, `hookline collect`, two simulated annotators with eight answers in
flight each, and a Chromium whose person uses the keyboard alone. The trainer and the page's server are killed once each with
SIGKILL, at random moments, and started again. `hookline reproduce` then repeats the run from its journal. What is finished under
runs/rounds is not repeated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from figures import draw, figures, tables
from team import Team, Work

ROOT = Path(__file__).resolve().parents[2]
MARK = "<!-- measured -->\n"
SMALL_START = (
    "tokenizer={train: bpe, on: builtin:keywords/sentences, vocabulary: 400}", "model={build: gpt2, layers: 1, width: 16, context: 128}",
    "phases.pretrain.steps=1", "phases.pretrain.rollout.rows=2", "phases.pretrain.evaluate=[]",
    "phases.sft.steps=1", "phases.sft.rollout.rows=2", "phases.sft.evaluate=[]",
)  # fmt: skip
COVERAGE = "{use: keyword-coverage, name: gold}"
FEW = Work(annotators=12, browser=4, in_flight=2, delay=0.2, by="coverage")
SMALL = (
    f"phases.ask.feedback.answers={FEW.answers}", "phases.ask.steps=1",
    "phases.ask.rollout.rows=20", "phases.reward-model.steps=2", "phases.rl.steps=2", "phases.rl.rollout.rows=4",
    "phases.rl.evaluate.heldout.rows=40", "phases.heldout.steps=1", f"phases.heldout.reward={COVERAGE}",
    f"phases.rl.evaluate.heldout.reward=[{COVERAGE}, kl]",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--start", default="", help="a finished run of the demo with this seed, instead of its first two phases")
    parser.add_argument("--out", default=str(ROOT / "runs" / "rounds"))
    asked = parser.parse_args()
    found = {}
    for seed in asked.seeds:
        folder = Path(asked.out) / str(seed)
        begin(folder, seed, asked.start, SMALL_START if asked.small else ())
        if not (folder / "killed.json").exists():
            team = Team(folder, seed, FEW, SMALL) if asked.small else Team(folder, seed, Work())
            team.go()
        repeat(folder)
        found[seed] = figures(folder)
        print(tables({seed: found[seed]}), flush=True)
    if not asked.small:
        file = ROOT / "docs" / "rounds.md"
        before, _, _ = file.read_text(encoding="utf-8").partition(MARK)
        about = f"Measured on {next(iter(found.values()))['processor']}, one thread for the trainer.\n"
        figure = "![Gold reward before, and after each round, for each seed](rounds.svg)\n"
        file.write_text(f"{before}{MARK}\n{about}\n{tables(found)}\n{figure}", encoding="utf-8")
        draw(found, ROOT / "docs" / "rounds.svg")


def begin(folder: Path, seed: int, start: str, changes: Sequence[str]) -> None:
    """The model that the rounds begin with: the demo's first two phases."""
    folder.mkdir(parents=True, exist_ok=True)
    if start and not (folder / "start").exists():
        (folder / "start").symlink_to(Path(start).resolve())
    if not (folder / "start" / "phases" / "sft" / "manifest.json").exists():
        demo = (ROOT / "examples" / "keyword-phrases.yaml").read_text(encoding="utf-8")
        until_sft, _, _ = demo.partition("  - name: comparisons")
        (folder / "start.yaml").write_text(f"{until_sft}\ntrackers: [console]\n", encoding="utf-8")
        command = ["run", "start.yaml", f"seed={seed}", *changes, "--out", "start"]
        with (folder / "start.log").open("ab") as log:
            subprocess.run([sys.executable, "-m", "hookline", *command], cwd=folder, check=True, stdout=log, stderr=log)


def repeat(folder: Path) -> None:
    """Repeat a run from its journal, and keep what is said of it."""
    if not (folder / "reproduced.txt").exists():
        command = [sys.executable, "-m", "hookline", "reproduce", "run"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        (folder / "reproduced.txt").write_text(done.stderr + done.stdout)


if __name__ == "__main__":
    main()
