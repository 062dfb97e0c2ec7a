"""One training followed: session, schedule, budget, errors, files. No Lightning."""
