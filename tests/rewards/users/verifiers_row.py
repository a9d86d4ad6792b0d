"""verifiers: one answer at a time, parameters by name; sync or async."""

import numpy as np


def correct_answer(completion, answer, prompt):
    return np.float32(0.5) if answer in completion and "add" in prompt else False


async def judged(completion, answer, **kwargs):
    return None if answer == "?" else len(completion) - len(answer)
