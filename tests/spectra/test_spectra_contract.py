"""What every module owes its reader; docstrings of public names are checked by ruff."""

import importlib
import pkgutil

import pytest

PACKAGES = [
    importlib.import_module(f"spectral_lightning.{name}") for name in ("sampling", "emergence", "diffusion", "spectra")
]
MODULES = [
    name
    for package in PACKAGES
    for name in (package.__name__, *(m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")))
]


@pytest.mark.parametrize("name", MODULES)
def test_module_has_docstring_and_all(name):
    module = importlib.import_module(name)
    assert module.__doc__.strip()
    assert module.__all__
    assert all(hasattr(module, public) for public in module.__all__)
