"""ms-swift: a class; completions are text for conversations, too, and the column is often called solution."""


class ORM:
    def __init__(self, args=None, **kwargs):
        self.args = args

    def __call__(self, **kwargs):
        raise NotImplementedError


class Accuracy(ORM):
    def __call__(self, completions, solution, **kwargs) -> list[float]:
        return [1.0 if said == want else 0.0 for said, want in zip(completions, solution)]


class Late(ORM):
    async def __call__(self, completions, **kwargs):
        return [len(said) for said in completions]


orms = {"accuracy": Accuracy, "late": Late}
