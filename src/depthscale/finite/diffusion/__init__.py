"""Stochastic differential limits of wide deep networks, and what solves them."""
