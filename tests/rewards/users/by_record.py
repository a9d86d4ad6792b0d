"""A function of one's own that reads the whole row."""


def share(completion, record):
    words = completion.split()
    return sum(word in words for word in record["keywords"]) / len(record["keywords"])
