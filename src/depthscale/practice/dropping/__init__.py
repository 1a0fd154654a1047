"""Where a model drops, and rates of one's own at each of these places."""
