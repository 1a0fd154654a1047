"""Absorbing phase transitions in deep networks, 2307.02284: its claims recomputed."""
