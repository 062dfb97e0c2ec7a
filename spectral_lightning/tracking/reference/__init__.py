"""The data a run is measured against."""
