"""The examples in the docstrings are executed."""

import doctest
import importlib
from pathlib import Path

import pytest

import spectral_lightning

ROOT = Path(spectral_lightning.__file__).parents[1]
# Found as files, not by import: one module that does not import fails its own test only.
FILES = [path for package in ("spectral_lightning", "studies") for path in sorted((ROOT / package).rglob("*.py"))]
EXAMPLES = [path for path in FILES if ">>>" in path.read_text()]


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_give_what_they_show(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
