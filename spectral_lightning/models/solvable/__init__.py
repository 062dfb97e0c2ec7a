"""The solvable denoisers."""
