"""inspect_ai: a decorated function makes the scorer; without the package, its decorator and `Score` are written here."""

import functools
from types import SimpleNamespace


def scorer(metrics):
    def decorate(make):
        @functools.wraps(make)
        def made(*args, **kwargs):
            return make(*args, **kwargs)

        made.__registry_info__ = {"type": "scorer", "metrics": metrics}
        return made

    return decorate


def Score(value, answer=None):
    return SimpleNamespace(value=value, answer=answer, explanation=None, metadata=None)


@scorer(metrics=["accuracy"])
def includes(partly="near"):
    async def score(state, target):
        said = state.output.completion
        if said == "?":
            return Score(float("nan"))
        if any(want in said for want in target):
            return Score("C", said)
        return Score("P" if state.metadata[partly] in said else "I", said)

    return score


async def length(state, target):
    assert state.messages[-1].text == state.output.completion
    assert state.user_prompt.text == state.input_text
    return Score(
        {"score": len(state.output.completion.split()) / len(target.text), "asked": len(state.input_text.split())}
    )
