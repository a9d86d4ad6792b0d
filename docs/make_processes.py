"""Measures the table in docs/processes.md: how far steps on two processes are from steps on one. `make processes`."""

from __future__ import annotations

from pathlib import Path

from hookline.registry import offers
from hookline.testing.ranks import Candidate, compared

PAGE = Path(__file__).with_name("processes.md")
MARK = "<!-- table -->\n"
NAMES = ("causal-lm", "sft", "bradley-terry", "dpo", "kto", "grpo", "ppo", "reinforce", "ilql", "q-learning", "replay", "episodes")


def main() -> None:
    candidates = [Candidate(offer) for offer in offers.offers() if offer.built_in and offer.name in NAMES]
    candidates = [one for one in candidates if one.offer.kind in ("update", "wrapper", "rollout")]
    candidates.sort(key=lambda one: NAMES.index(one.offer.name))
    lines = ["| component | first gradient | later gradients | figures | samples that differ |", "|---|---|---|---|---|"]
    for candidate, (_, found) in zip(candidates, compared(candidates)):
        first, later, figures = (
            max(getattr(one, name) for one in found) for name in ("gradient", "later", "figures")
        )
        samples = sum(bool(one.samples) for one in found)
        lines.append(f"| `{candidate.offer.name}` | {first:.1e} | {later:.1e} | {figures:.1e} | {samples or 'none'} |")
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(f"{before}{MARK}\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
