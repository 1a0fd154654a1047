"""What a person sees: terminal report, offline page, plots; it only consumes results."""
