"""verl: one answer at a time; a dict's `score` counts, its other numbers are logged."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.25, **kwargs):
    right = solution_str.split()[-1] == ground_truth
    said = {"score": 1.0 + bonus if right else 0.0, "acc": right, "pred": solution_str.split()[-1]}
    return said if data_source == "sums" and extra_info["split"] == "train" else -1.0


def with_extras(data_source, solution_str, ground_truth, extra_info, **reward_kwargs):
    """A tuple, of which the first item counts; `reward_kwargs` are constants of the experiment."""
    assert not {"prompt", "answer"} & reward_kwargs.keys()
    return solution_str == ground_truth, {"seen": len(solution_str)}
