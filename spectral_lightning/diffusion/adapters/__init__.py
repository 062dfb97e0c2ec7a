"""From any network to a denoiser: conventions, adapters, checks."""
