"""Watch a diffusion model learn its data mode by mode, during training and next to an exactly solvable theory.

Names are imported on first use (``__init__.pyi`` lists them), so that ``import spectral_lightning.theory`` loads neither
torch nor Lightning.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
