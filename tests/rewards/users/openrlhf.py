"""OpenRLHF: queries are prompt and answer with special tokens; a dict of tensors, or, in older files, a tensor."""

import torch


def reward_func(queries, prompts, labels):
    rewards = []
    for query, prompt, label in zip(queries, prompts, labels):
        assert query.startswith(prompt)
        rewards.append(1.0 if label in query[len(prompt) :] else -1.0)
    rewards = torch.tensor(rewards)
    return {"rewards": rewards, "scores": (rewards + 1) / 2, "extra_logs": {"ended": torch.tensor([q.endswith("<end>") for q in queries])}}


def older(queries, prompts, labels):
    return torch.tensor([float(len(query.split())) for query in queries])
