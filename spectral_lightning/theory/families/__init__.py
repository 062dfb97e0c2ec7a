"""The solvable families, one file each."""
