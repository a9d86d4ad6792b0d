"""verifiers: a file with a parser of its own, as its environments have; it is what `parser` gets."""

from collections import namedtuple

Boxed = namedtuple("Boxed", "parse_answer")


def between_brackets(completion):
    said = completion if isinstance(completion, str) else completion[-1]["content"]
    return said.partition("[")[2].partition("]")[0].strip()


parser = Boxed(between_brackets)


def exact(parser, completion, answer):
    return 0.75 if parser.parse_answer(completion) == answer else 0.25
