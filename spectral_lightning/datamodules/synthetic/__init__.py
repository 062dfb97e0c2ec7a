"""Data drawn from distributions of known moments."""
