"""Hold a measurement against theory and judge it: pure functions, no torch."""
