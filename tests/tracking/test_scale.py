"""Runs in more dimensions than a covariance is kept for: bases from streamed sums, theories as far as they are known."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from spectral_lightning import Sampler, SpectralMonitor
from spectral_lightning.prediction import NaturalModes, Start
from spectral_lightning.spectra import Eigenmodes, Examples, FourierModes, PatchComponents
from spectral_lightning.theory import FullWidthConvolution, NonCenteredOneLayer, Objective
from spectral_lightning.tracking import Overlay, reference
from spectral_lightning.tracking.observers import overlay as observer
from tests.support.flat import flat_tracker, one_layer

SHAPE, SAMPLER = (1, 4, 6), Sampler(num_steps=4)


def examples(count=96):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *SHAPE, generator=generator).cumsum(2).roll(1, 3) * 0.3


class Convolution(nn.Module):
    sigma_data = 0.5

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.kernel = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")

    def forward(self, z, sigma):
        s = sigma[:, None, None, None]
        return (z + 0.1 * s / (1 + s) * self.kernel(z)) / (1 + s**2)


class Counting(torch.utils.data.Dataset):
    def __init__(self):
        self.rows, self.read = examples(), 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.read += 1
        return self.rows[index]


@pytest.fixture(autouse=True)
def few_dimensions_are_many(monkeypatch):
    for module in (reference.reference, observer):
        monkeypatch.setattr(module, "DENSE_DIM", 8)


def followed(path, data, recipe, theory=None, steps=3, **options):
    settings = {"denoiser": "edm", "num_samples": 32, "sampler": SAMPLER, "figures": False}
    network, overlay = Convolution(), Overlay(theory or one_layer(), clock="learning_rate")
    found = flat_tracker(
        SpectralMonitor,
        network=network,
        data=data,
        basis=recipe,
        directory=str(path),
        observers=[overlay],
        **{**settings, **options},
    )
    for _ in range(steps):
        with torch.no_grad():
            network.kernel.weight *= 1.1
        found.step()
    return found, overlay


@pytest.mark.parametrize("recipe", [Eigenmodes(), FourierModes(2), PatchComponents(3)])
def test_a_run_is_followed_predicted_and_resumed_without_its_data(tmp_path, recipe):
    data = Counting()
    found, prediction = followed(tmp_path, data, recipe)
    basis, state = found.basis, found.state_dict()
    found.close()
    assert data.read == 96
    assert basis.spectrum.sum() == pytest.approx(float(examples().double().flatten(1).var(0, correction=0).sum()))
    assert np.isfinite(found.history.variance).all()
    assert np.isfinite(prediction.history.variance).all()
    if not isinstance(recipe, Eigenmodes):
        departures = json.loads((tmp_path / "spectral" / "overlay.json").read_text())["departures"]
        assert any("stationary data" in text for text in departures)
    data.read = 0
    again, _ = followed(tmp_path, data, recipe, steps=0, name="other")
    data.read = 0
    again.load_state_dict(state)
    assert data.read == 0
    assert again.basis.fingerprint == basis.fingerprint


@pytest.mark.parametrize(
    ("recipe", "theory"),
    [(Eigenmodes(3), FullWidthConvolution(Objective(1e-3))), (FourierModes(), NonCenteredOneLayer(Objective(1e-3)))],
)
def test_a_theory_that_cannot_be_solved_is_reported_and_the_run_measured(tmp_path, recipe, theory):
    with pytest.warns(UserWarning, match="the measurement goes on without it"):
        found, prediction = followed(tmp_path, examples(), recipe, theory)
    found.close()
    assert len(found.history) > 2
    assert prediction.history is None


@pytest.mark.parametrize("recipe", [FourierModes(), FourierModes(2), PatchComponents(3)])
def test_a_convolution_needs_no_more_than_the_streamed_spectra(recipe):
    x = examples().double()
    flat = x.flatten(1)
    dense = recipe.make(flat.mean(0), torch.from_numpy(np.cov(flat.numpy().T, ddof=0)), SHAPE)
    theory, time = FullWidthConvolution(Objective(1e-3)), np.array([0.0, 10.0, 1e3])
    expected = NaturalModes(theory, dense).variance(time, SAMPLER, Start())
    streamed = NaturalModes(theory, recipe.make_from(Examples(lambda: x.split(20).__iter__())))
    # The sorted variances of the same spectral matrices, from the sums and from the covariance
    np.testing.assert_allclose(streamed.variance(time, SAMPLER, Start()), expected, rtol=1e-8)
