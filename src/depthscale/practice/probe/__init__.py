"""Measure a torch model: trace it, recognise its chain, collect statistics, leave it as it was."""
