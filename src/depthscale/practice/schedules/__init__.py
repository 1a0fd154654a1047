"""Which rates over depth are best: the exact recursion, the objectives, the optimum."""
