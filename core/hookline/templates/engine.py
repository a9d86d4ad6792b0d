"""NAME: an engine for Hookline. An engine draws the answers, in this process or elsewhere."""

import hookline
import torch
from hookline import Completion, Engine
from pydantic import Field


class Example(Engine):
    """Answers with tokens of the prompt, all with the same probability."""

    class Config(hookline.Config):
        shortest: int = Field(1, ge=1)
        """Least number of tokens in an answer. Large values make answers longer and their lengths more alike."""

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
            logprobs=None,  # under the requested role; None if the engine does not know them: the core computes them
            versions=torch.full((length,), self.version),
            finish_reason="length",
        )
