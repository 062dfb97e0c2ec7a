"""Turns a theory into a prediction of what is measured: natural modes, clock, departures, comparison. No Trainer.

Names are imported on first use (``__init__.pyi`` lists them), so that reading a history loads no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
