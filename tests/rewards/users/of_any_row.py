"""A function that reads the answer alone, so that it can be asked about any rows."""


def vowels(completions, **kwargs):
    return [sum(letter in "aeiou" for letter in text) + len(text) / 100 for text in completions]


def vowel_share(completion):
    return sum(letter in "aeiou" for letter in completion) / max(1, len(completion)) or None
