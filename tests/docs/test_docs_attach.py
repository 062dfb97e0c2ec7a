"""The page on attaching: its blocks run in order, its start lines appear, its messages are the package's."""

import fnmatch
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import spectral_lightning
from spectral_lightning import Reference, SpectralMonitor, SpectralTracker

PAGE = Path(spectral_lightning.__file__).parent.parent / "docs" / "attach.md"
# The page is run in the set-up of whichever comes first, which a busy machine may draw out.
pytestmark = pytest.mark.timeout(900)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = PAGE.read_text()


def blocks(kind):
    """Blocks of one language, each with the number of lines before its code."""
    return [(TEXT.count("\n", 0, m.start(2)), m[2]) for m in FENCE.finditer(TEXT) if m[1] == kind]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the names of the page are after all its blocks, and what was printed or logged meanwhile."""
    for library in ("diffusers", "denoising_diffusion_pytorch", "torchcfm", "accelerate"):
        pytest.importorskip(library)
    said, names = [], {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(tmp_path_factory.mktemp("page"))
        patch.setattr("spectral_lightning.callbacks.training.rank_zero_info", said.append)
        for offset, code in blocks("python"):
            # Blank lines in front, so that a traceback shows the line of the page.
            exec(compile("\n" * offset + code, str(PAGE), "exec"), names)
        csv = Path("variance.csv").read_text().splitlines()
    return names, said, csv


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SpectralTracker, SpectralMonitor])
def test_everything_attached_on_the_page_measured_its_training(page, kind):
    found = {key: value for key, value in page[0].items() if isinstance(value, kind)}
    code = "".join(text for _, text in blocks("python"))
    assert len(found) == code.count(f"{kind.__name__}(")
    for name, one in found.items():
        history = one.history
        expected = {"careful": None, "resumed": [0, 1, 3, 10, 20], "loose": [0, 1, 3]}.get(name, [0, 1, 3, 10])
        assert expected is None or history.steps.tolist() == expected, name
        assert np.isfinite(history.variance).all(), name
        assert not history["non_finite"].any(), name
        assert not np.array_equal(history.variance[0], history.variance[-1]) or name == "callable_"


@pytest.mark.slow
def test_start_lines_are_those_of_the_page(page):
    quoted = [line for _, block in blocks("text") for line in block.splitlines()]
    assert len(quoted) >= 4
    for line in quoted:
        pattern = "*".join(re.sub(r"([*?[])", r"[\1]", part) for part in line.split("..."))
        assert any(fnmatch.fnmatchcase(line_said, pattern) for line_said in page[1]), line


@pytest.mark.slow
def test_what_the_paragraphs_say_of_the_runs(page):
    names = page[0]
    # float32 through two routes of the same arithmetic
    np.testing.assert_allclose(names["edm"].history.variance, names["backbone"].history.variance, rtol=1e-4)
    assert names["raw"].history.metadata["weights"].startswith("raw weights")
    assert not np.allclose(names["raw"].history.variance[-1], names["average"].history.variance[-1], rtol=1e-4)
    for name in ("by_label", "by_classifier"):
        assert names[name].history["group_variance"].shape == (4, 2, 64)
    assert "256 training examples" in names["other"].basis.describe()
    assert sorted(names["logged"]) == [0, 1, 3, 10]
    assert names["monitor"].session.prediction is not None
    assert len(page[2]) == 1 + 64


@pytest.mark.slow
def test_the_reference_is_that_of_the_encoded_data(page, tmp_path, monkeypatch):
    """Encoded by hand, with the encoder that the run had."""
    monkeypatch.chdir(tmp_path)
    names = page[0]
    torch.manual_seed(0)
    module = names["Latent"]()
    tracker = SpectralTracker(denoiser="edm:net", reference=Reference(transform="encode"), **names["quick"])
    weight = module.first_stage.weight.clone()
    names["fit"](module, tracker)
    rows = module.encode(names["images"]).flatten(1).double()
    spread = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0)).flip(0)
    torch.testing.assert_close(tracker.basis.variance, spread, rtol=1e-5, atol=1e-7)
    assert torch.equal(weight, module.first_stage.weight)
    assert not module.first_stage.training


def test_messages_quoted_are_messages_of_the_package():
    source = "".join(path.read_text() for path in sorted(PAGE.parent.parent.glob("spectral_lightning/**/*.py")))
    rows = re.findall(r"^\| `(.*?)` \| ", TEXT.split("## If it refuses")[1], re.MULTILINE)
    assert len(rows) >= 10
    for message in rows:
        assert message in source, message
