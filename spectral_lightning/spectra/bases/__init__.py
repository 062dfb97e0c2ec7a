"""Modes of the data: eigenmodes, Fourier modes, patch components."""
