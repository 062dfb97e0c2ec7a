"""What importing the package costs and offers, and the strictness about skips."""

import importlib
import json
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


HEAVIER = HEAVY | {"numpy", "scipy"}
IMPORTS = {
    "spectral_lightning": HEAVIER,
    "spectral_lightning.arguments": HEAVIER,
    "spectral_lightning.sampling": HEAVIER,
    "spectral_lightning.emergence": HEAVY | {"scipy.stats"},
    "spectral_lightning.theory": HEAVY | {"scipy.stats"},
}
HELP = {"--help": HEAVIER, "theory": HEAVY, "exponents": HEAVY, "summary": HEAVY}
HELP |= {"report": HEAVY, "forecast": HEAVY, "emergence": HEAVY}
ONE_BY_ONE = """
import importlib, json, sys
from contextlib import redirect_stdout, suppress
from io import StringIO
found, printed = {}, StringIO()
for name in sys.argv[2:]:
    if sys.argv[1] == "import":
        importlib.import_module(name)
    else:
        from spectral_lightning.cli import main
        with redirect_stdout(printed), suppress(SystemExit):
            main([name, "--help"] if name[0] != "-" else [name])
    found[name] = sorted(sys.modules), printed.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module", params=[("import", IMPORTS), ("help", HELP)], ids=["import", "help"])
def one_by_one(request):
    """Packages imported, or helps printed, one after another in one process: what each may not load, has loaded, printed."""
    what, names = request.param
    done = _python("-c", ONE_BY_ONE, what, *names)
    assert done.returncode == 0, done.stderr
    return what, {name: (names[name], *row) for name, row in json.loads(done.stdout).items()}


def test_no_more_is_loaded_than_needed(one_by_one):
    what, rows = one_by_one
    for absent, loaded, _ in rows.values():
        assert "spectral_lightning" in loaded
        assert not set(loaded) & absent
    if what == "help":
        printed = [text for *_, text in rows.values()]
        assert [text.count("usage: spectral-lightning") for text in printed] == list(range(1, 1 + len(HELP)))


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
