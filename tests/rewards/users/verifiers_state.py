"""verifiers: functions of the state, of the parser, and of a group; answers to conversations are messages."""


def exact(parser, completion, answer, **kwargs):
    assert sorted(kwargs) == ["info", "level", "prompt", "state", "task"]
    return parser.parse_answer(completion) == answer


def by_state(state):
    assert state["input"]["answer"] == state["answer"]
    shown = state["completion"]
    said = shown if isinstance(shown, str) else shown[-1]["content"]
    return len(said.split()) * state["info"].get("price", 1)


async def best_of_group(completions, answers, states):
    assert [state["answer"] for state in states] == answers
    lengths = [len(one if isinstance(one, str) else one[-1]["content"]) for one in completions]
    return [float(length == max(lengths)) for length in lengths]
