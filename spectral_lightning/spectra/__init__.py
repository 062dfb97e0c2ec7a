"""The measurement: moments of the data, bases, statistics of samples along modes, and the history they make.

Names are imported on first use (``__init__.pyi`` lists them), so that reading a history loads no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
