"""The numerics the families share."""
