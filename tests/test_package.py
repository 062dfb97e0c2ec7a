"""What importing the package costs and offers, and the strictness about skips."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spectral_lightning
from spectral_lightning.cli.main import COMMANDS, help_text

HEAVY = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "matplotlib"}
CONFTEST = Path(__file__).with_name("conftest.py")


def _python(*arguments, cwd=None, **environment):
    path = os.pathsep.join([str(Path(spectral_lightning.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("spectral_lightning", HEAVY | {"numpy", "scipy"}),
        ("spectral_lightning.arguments", HEAVY | {"numpy", "scipy"}),
        ("spectral_lightning.sampling", HEAVY | {"numpy", "scipy"}),
        ("spectral_lightning.emergence", HEAVY),
        ("spectral_lightning.theory", HEAVY),
    ],
)
def test_import_loads_no_more_than_needed(module, absent):
    done = _python("-c", f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "spectral_lightning" in loaded
    assert not loaded & absent


HELP = "from spectral_lightning.cli import main; main({!r})"


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        (HELP.format(["--help"]), HEAVY | {"numpy", "scipy"}),
        (HELP.format(["theory", "--help"]), HEAVY),
        (HELP.format(["exponents", "--help"]), HEAVY),
        (HELP.format(["summary", "--help"]), HEAVY),
        (HELP.format(["report", "--help"]), HEAVY),
    ],
)
def test_commands_without_a_trainer_load_no_more_than_needed(command, absent):
    report = (
        "import atexit, sys; atexit.register(lambda: print(*{n.split('.')[0] for n in sys.modules}, file=sys.stderr))"
    )
    done = _python("-c", f"{report}\n{command}")
    assert done.returncode == 0
    assert "usage: spectral-lightning" in done.stdout
    assert not set(done.stderr.split()) & absent


def test_help_repeats_the_docstrings():
    for name, (home, text) in COMMANDS.items():
        module, _, function = home.partition(":")
        assert getattr(importlib.import_module(module), function).__doc__.splitlines()[0] == text
        assert name in help_text()


@pytest.mark.parametrize("name", spectral_lightning.__all__)
def test_public_name_resolves_lazily(name):
    value = getattr(spectral_lightning, name)
    assert value.__name__ == name
    assert value.__doc__


def test_dir_lists_every_public_name():
    assert set(dir(spectral_lightning)) == set(spectral_lightning.__all__)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="SpectralTraker"):
        spectral_lightning.SpectralTraker  # noqa: B018


SKIPS = {
    "in_a_test": "def test_a():\n    pytest.importorskip('surely_absent')",
    "in_a_module": "pytest.importorskip('surely_absent')\ndef test_a(): pass",
    "another_reason": "def test_a():\n    pytest.skip('no GPU')",
    "xfail": "@pytest.mark.xfail\ndef test_a():\n    raise ImportError('No module named x')",
}


@pytest.mark.parametrize(
    ("strict", "counted"), [("1", ["1 failed", "1 skipped", "1 xfailed", "1 error"]), ("0", ["3 skipped", "1 xfailed"])]
)
def test_skip_for_a_missing_dependency_fails_where_asked(strict, counted, tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    for name, body in SKIPS.items():
        (tmp_path / f"test_{name}.py").write_text(f"import pytest\n{body}\n")
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "--continue-on-collection-errors"]
    done = _python("-m", "pytest", *options, cwd=tmp_path, SPECTRAL_LIGHTNING_STRICT_SKIPS=strict)
    assert re.findall(r"\d+ \w+(?=[, ])", done.stdout.splitlines()[-1]) == counted
    assert (done.returncode == 0) == (strict == "0")
