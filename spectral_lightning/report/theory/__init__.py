"""The theory's figures and tables."""
