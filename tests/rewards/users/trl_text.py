"""TRL, plain text: lists by keyword, columns by name; None where a function cannot judge."""


def accuracy(completions, answer, **kwargs):
    return [None if want is None else float(said.strip() == want) for said, want in zip(completions, answer)]


def long_enough(completion_ids, **kwargs):
    return [len(ids) / 10 for ids in completion_ids]


def kept(prompts, completions, completion_ids, trainer_state, log_metric, log_extra, level, **columns):
    """Everything that TRL passes."""
    assert isinstance(prompts[0], str)
    assert sorted(columns) == ["answer"]
    log_metric("mean_level", sum(level) / len(level))
    log_extra("answers", completions)
    return [trainer_state.global_step + len(ids) for ids in completion_ids]
