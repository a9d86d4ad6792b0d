"""verl's batched form: lists, and a list of numbers or dicts."""


def compute_score(data_sources, solution_strs, ground_truths, extra_infos, **kwargs):
    return [{"score": float(said == want), "length": len(said)} for said, want in zip(solution_strs, ground_truths)]
