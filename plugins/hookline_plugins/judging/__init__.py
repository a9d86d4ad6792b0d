"""An LLM judge behind an OpenAI-style HTTP service: what it is asked, how, and what is known already.

Shared by the reward `judge` and by whatever else asks a judge. `judge.py` rates and compares; `asks.py` is the base of
components that ask; `options.py` has the options,
`questions.py` the text of a question, `service.py` the requests, `known.py` the file of replies, `verdicts.py` reads a reply.
"""

from hookline_plugins.judging.asks import Asks
from hookline_plugins.judging.judge import Judge, Verdict, together
from hookline_plugins.judging.options import Budget, JudgeOptions, RatingOptions

__all__ = ["Asks", "Budget", "Judge", "JudgeOptions", "RatingOptions", "Verdict", "together"]
