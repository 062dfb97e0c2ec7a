"""The table of measurements, in memory and on disk."""
