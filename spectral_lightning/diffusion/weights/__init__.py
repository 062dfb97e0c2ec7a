"""The weights to measure: raw or averaged."""
