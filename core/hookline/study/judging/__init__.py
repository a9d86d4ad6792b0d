"""What judgements are worth: agreement, annotators, ratings, reward models, sequential tests, and what to ask next."""
