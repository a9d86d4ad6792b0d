"""TRL and OpenRLHF: environments, which play episodes and are not functions of an answer."""


class Guess:
    def reset(self, **columns):
        return "guess"

    def guess(self, number: int) -> str:
        """Guess a number."""
        self.right = number == 3
        return "yes" if self.right else "no"

    def get_reward(self):
        return float(self.right)


class AgentInstance:
    async def reset(self, states, **kwargs):
        return {"observation": states["observation"]}

    async def step(self, states, **kwargs):
        return {"rewards": 1.0, "scores": 1.0, "environment_feedback": "", "done": True}


def of_a_trace(trace, runtime):
    return 1.0
