"""GRPO on rows and a reward function of this file; `python examples/python/grpo.py` runs it in a few seconds."""

from __future__ import annotations

import hookline
from hookline import Experiment, Model, Phase, use
from hookline_plugins.algorithms.grpo import GRPO

WORDS = "open close read write file list value name return error string number".split()


def correct(completions: list[str], answer: list[str]) -> list[float]:
    """How many letters of the answer a completion has."""
    return [sum(letter in text for letter in right) / len(right) for text, right in zip(completions, answer)]


experiment = Experiment(
    name="letters",
    tokenizer={"train": "bpe", "on": [{"text": f"To {a} the {b}."} for a in WORDS for b in WORDS], "vocabulary": 300},
    model=Model(build=use("gpt2", layers=2, width=32, heads=2, context=64)),
    phases=[
        Phase(
            name="grpo",
            steps=4,
            rollout=use(
                "generate",
                prompts=[{"prompt": word, "answer": word} for word in WORDS],
                rows=4,
                samples_per_prompt=4,
                max_new_tokens=8,
            ),
            reward=[correct],
            advantage="group-relative",
            update=use(GRPO, GRPO.Config(lr=1e-3)),
        )
    ],
)

if __name__ == "__main__":
    print(hookline.run(experiment).directory)
