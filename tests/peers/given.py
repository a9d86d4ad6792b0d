"""A plugin of the tests: answers that are given instead of drawn, and rows in the order of their file."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

import hookline
from hookline import Completion, Context, Engine, Request, Rollout, hookimpl
from hookline_plugins.rollouts.dataset import Dataset


class Given(Engine):
    """Replies to each prompt with the next of its answers."""

    gives = frozenset()

    class Config(hookline.Config):
        answers: str
        """A JSON file with `prompts` and, per prompt, `answers`, as token ids."""

    def setup(self, ctx: Context) -> None:
        stored = json.loads(Path(self.config.answers).read_text())
        self.answers = {tuple(prompt): said for prompt, said in zip(stored["prompts"], stored["answers"])}
        self.asked: dict[Sequence[int], int] = defaultdict(int)
        self.version = 0

    def sync(self, role: str, version: int) -> None:
        self.version = version

    async def draw(self, request: Request) -> Completion:
        prompt = tuple(request.prompt)
        ids = self.answers[prompt][self.asked[prompt]]
        self.asked[prompt] += 1
        return Completion(
            token_ids=torch.tensor(ids),
            finish_reason="stop" if ids[-1] in request.ends else "length",
            logprobs=None,
            versions=torch.full((len(ids),), self.version),
        )


class InOrder(Dataset):
    """`dataset` without its shuffling: all rows of the file, in its order."""

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        ctx.take(len(self.rows), len(self.rows))
        return Rollout.build(ctx, [self.row(i) for i in self.rows], source=self.config.path)
