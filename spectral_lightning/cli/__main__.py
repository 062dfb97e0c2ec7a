"""``python -m spectral_lightning.cli``."""

from spectral_lightning.cli.main import main

if __name__ == "__main__":
    main()
