"""What several tests share: small trainings, ideal networks, oracles, runs of several processes."""
