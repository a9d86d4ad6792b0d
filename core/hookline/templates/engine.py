"""NAME: an engine for Hookline. It stands in for whatever draws answers, in this process or elsewhere."""

import hookline
import torch
from hookline import Completion, Engine
from pydantic import Field


class Example(Engine):
    """Answers with tokens of the prompt, each as likely as the others."""

    class Config(hookline.Config):
        shortest: int = Field(1, ge=1)
        """Tokens that every answer has at least. More leave less to chance."""

    def setup(self, ctx):
        self.version = 0

    def sync(self, role, version):
        self.version = version

    async def draw(self, request):
        # all randomness comes from the seed and the sample's own id
        generator = torch.Generator().manual_seed((request.seed * 1_000_003 + request.sample) % 2**63)
        known = sorted(set(request.prompt))
        shortest = min(self.config.shortest, request.max_new_tokens)
        length = int(torch.randint(shortest, request.max_new_tokens + 1, (), generator=generator))
        chosen = torch.randint(len(known), (length,), generator=generator)
        return Completion(
            token_ids=torch.tensor(known)[chosen],
            logprobs=None,  # of the role that was asked for: whoever knows them gives them, else the core computes them
            versions=torch.full((length,), self.version),
            finish_reason="length",
        )
