"""What `math-answer` asks in its own process: one answer against one reference, by math-verify."""

from __future__ import annotations


def judge(completion: str, answer: object) -> float | None:
    """1 if the answer equals the reference as mathematics, else 0; None if the reference cannot be read.

    A reference is LaTeX or a plain number or expression, without delimiters or with them; of `… #### 72` (GSM8K) what follows.
    """
    from math_verify import parse, verify

    gold = str(answer).rpartition("####")[2].strip()
    if not any(mark in gold for mark in ("$", "\\boxed", "\\(", "\\[")):
        gold = f"${gold}$"  # otherwise only a number would be read
    reference = parse(gold)
    return float(verify(reference, parse(completion))) if reference else None
