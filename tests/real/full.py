"""Full runs, as a user makes them: six shapes of folders × the experiments of examples/real; `make real` prints the table.

Each run is exported, read back by transformers, and asked on the command line. The exit code is 1 if an export differs from the run
or if its answers do not end. `full.py DIR sft reward-model` runs these experiments only; what is exported is not run again.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import torch
from readback import ASKED, MOST, NEAR, TALK, read
from transformers import AutoTokenizer
from transformers.utils import logging

import hookline
from hookline.cli import main
from hookline.loop.api import open_finished
from shapes import SHAPES, build

EXPERIMENTS = Path(__file__).resolve().parents[2] / "examples/real"
EXAMPLES = ("sft", "sharegpt", "causal-lm", "dpo", "orpo", "kto", "reward-model", "grpo", "rloo", "ppo")


def hook(*words: str, typed: str = "") -> str:
    """What a hookline command prints. Raises SystemExit if it fails."""
    sys.stdin, sys.stdout, kept = io.StringIO(typed), io.StringIO(), (sys.stdin, sys.stdout)
    try:
        code = main(list(words))
        said = sys.stdout.getvalue()
    finally:
        sys.stdin, sys.stdout = kept
    if code:
        raise SystemExit(f"hookline {' '.join(words)} ended with exit code {code}")
    return said


def difference(run: Path, out: Path, theirs: torch.Tensor) -> float:
    """The largest difference between the run's logits or scores of a conversation, and those of its export."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer(tokenizer.apply_chat_template(TALK, tokenize=False), add_special_tokens=False)["input_ids"]
    with open_finished(hookline.Run.read(run)) as loop, torch.no_grad():
        role = loop.phase.roles["policy"]
        if "reward" not in role.heads:
            return float((role.net(input_ids=torch.tensor([ids])).logits - theirs).abs().max())
        row = hookline.Encoded(prompt_ids=ids[:1], answer_ids=ids[1:])
        scored = loop.ctx.stats(hookline.Rollout.build(loop.ctx, [row], source="test"), want=("reward",))["reward"]
        bias = float(role.heads["reward"].inner.bias)
        return abs(float(scored[0, len(ids) - 2]) - bias - float(theirs[0, 0]))


def done(root: Path, shape: str, name: str, *more: str) -> tuple[Path, Path]:
    """The run of an example and its export; what is exported is not run again. more: overrides."""
    run, out = root / "runs" / shape / name, root / "exports" / shape / name
    if not out.exists():
        hook("run", str(EXPERIMENTS / f"{name}.yaml"), f"model.path={root / 'folders' / shape}", *more, "--out", str(run))
        hook("export", str(run), str(out))
    return run, out


def checked(run: Path, out: Path) -> tuple[float, list[bool], str, list[str]]:
    """(how far the export is from the run, which answers end in transformers, the first one, what is wrong)."""
    found, tensor = read(out)
    gap = difference(run, out, tensor)
    wrong = [f"the export differs by {gap:.1e}"] if not gap <= NEAR else []
    if "said" not in found:
        return gap, [], "", wrong
    asked: list[Any] = [[{"role": "user", "content": text}] for text in ASKED]
    ours = hookline.generate(out, asked, max_new_tokens=MOST, temperature=0)
    typed = hook("chat", str(out), "--temperature", "0", "--max-new-tokens", str(MOST), typed=f"{ASKED[0]}\n\n")
    if ours != found["texts"] or typed.rstrip("\n") != ours[0].rstrip("\n"):
        wrong.append(f"{found['texts']} in transformers, {ours} and {typed!r} here")
    return gap, found["stops"], ours[0], wrong


def row(root: Path, shape: str, name: str) -> tuple[str, list[str]]:
    """A line of the table, and what is wrong."""
    began = time.monotonic()
    run, out = done(root, shape, name)
    gap, stops, answer, wrong = checked(run, out)
    wrong += ["an answer does not end"] if not all(stops) else []
    rows = hookline.Run.read(run).rows()
    metrics = [each["metrics"] for each in rows if each["phase"] == rows[-1]["phase"]]
    figure = "reward" if rows[-1]["phase"] in ("grpo", "rloo", "ppo") else "loss"
    first, last = metrics[0][figure], metrics[-1][figure]
    said = f"{sum(stops)} of {len(stops)}: {answer!r}" if stops else "–"
    seconds = time.monotonic() - began
    return (
        f"| {shape} | {name} | {len(rows)} | {figure} {first:.3g} → {last:.3g} | {said} | {gap:.0e} | {seconds:.0f} |",
        [f"{shape} {name}: {each}" for each in wrong],
    )


def table(root: Path, examples: tuple[str, ...]) -> int:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    wrong = []
    print(
        "| folder | example | steps | first → last | answers that stop | export differs by | seconds |\n|---|---|---|---|---|---|---|"
    )
    for shape in SHAPES:
        if not (root / "folders" / shape).exists():
            build(shape, root / "folders" / shape)
        for name in examples:
            line, more = row(root, shape, name)
            wrong += more
            print(line, flush=True)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(table(Path(sys.argv[1]).absolute(), tuple(sys.argv[2:]) or EXAMPLES))
