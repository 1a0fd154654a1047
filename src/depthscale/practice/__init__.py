"""Real torch models: trace what they compute, measure their signals, hold both against theory."""
