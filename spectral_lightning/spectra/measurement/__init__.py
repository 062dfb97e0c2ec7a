"""One measurement: samples, statistics along modes, groups."""
