"""Trackers in several bases beside their theory, several of them at once, and the denoiser's own gains."""

import numpy as np
import pytest
import torch

from spectral_lightning.callbacks import AnalyticOverlay
from spectral_lightning.datamodules import GaussianFieldDataModule
from spectral_lightning.models import FullWidthConvDenoiser, LinearDenoiser, LocalConvDenoiser
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import (
    Eigenmodes,
    FourierModes,
    PatchComponents,
    PCABasis,
    SpectralHistory,
    SpectralProbe,
)
from spectral_lightning.theory import FullWidthConvolution, NonCenteredOneLayer, Objective, OneLayer, Preconditioning
from tests.support.tiny_training import OwnModule, fit, tracker

SAMPLER = Sampler(num_steps=6)
BASES = {
    "pca": "pca",
    "fourier": "fourier",
    "bands": FourierModes(bands=2),
    "patch": PatchComponents(size=3),
    "valid": PatchComponents(size=3, stride=2, boundary="valid"),
}


def field(channels=1, covariance=((1.0, 0.3), (0.3, 0.5))):
    own = {"channel_covariance": [list(row) for row in covariance]} if channels == 2 else {}
    defaults = {"size": [8], "exponent": 2.0, "scale": 3.0, "exact_moments": True, "num_samples": 64, "batch_size": 8}
    return GaussianFieldDataModule(channels=channels, **defaults, **own)


def sgd(rate):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


def pairs(names=BASES, **options):
    """A tracker with an overlay for each of the bases."""
    defaults = {"num_samples": 32, "per_decade": 4, "sampler": None, **options}
    return [(tracker(basis=BASES[name], name=name, **defaults), AnalyticOverlay(tracker=name)) for name in names]


def run(path, model, data, callbacks, max_steps, **options):
    fit(path, [c for pair in callbacks for c in pair], model, data, max_steps=max_steps, limit_val_batches=0, **options)


FAMILIES = {  # channels, model, learning rate
    "linear": (1, LinearDenoiser, 0.02),
    "full width": (2, FullWidthConvDenoiser, 3e-3),
    "local": (1, LocalConvDenoiser, 4e-3),
}


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "model", "rate"), FAMILIES.values(), ids=FAMILIES)
def test_every_family_lies_on_its_theory_in_every_basis(tmp_path, channels, model, rate):
    data, found = field(channels), pairs(track_gain=True)
    run(tmp_path, model(list(data.shape), sampler=SAMPLER, init=0.1, optimizer=sgd(rate)), data, found, 60)
    for own, overlay in found:
        measured, predicted = own.history, overlay.history
        assert overlay.departures == []
        assert measured.steps.tolist() == predicted.steps.tolist()
        # Complete latent blocks: what is left is single precision.
        np.testing.assert_allclose(measured.variance, predicted.variance, rtol=1e-4)
        np.testing.assert_allclose(measured["gain"], predicted["gain"], rtol=0, atol=1e-5)
        moved = np.abs(np.log(measured.variance[-1] / measured.variance[0]))
        assert moved.max() > 0.3  # something was learnt, so that lying on the curve means something
        prediction = overlay.predicted
        shifted = prediction.natural.variance(np.ceil(1.1 * measured.steps), SAMPLER, prediction.start(measured))
        assert (np.abs(shifted / predicted.variance - 1).max(axis=0)[moved > 0.3] > 0.005).all()
        # The files hold the same, every coordinate of the data once.
        files = own.session.results.files
        for name, history in (("history.npz", measured), ("prediction.npz", predicted)):
            np.testing.assert_array_equal(SpectralHistory.load(files / name)["gain"], history["gain"])
        assert own.session.basis.kind != "fourier" or measured["multiplicity"].sum() == 8 * channels


class Counted(OwnModule):
    evaluated = 0

    def denoise(self, z, sigma):
        self.evaluated += 0 if torch.is_grad_enabled() else len(z)
        return super().denoise(z, sigma)


def test_trackers_sample_once_if_they_sample_alike_and_measure_what_each_would_alone(tmp_path):
    def measured(names, seeds=(0, 0, 0, 0, 0)):
        torch.manual_seed(0)
        module = Counted()
        found = [tracker(name=n, basis=BASES[n], num_samples=32, seed=s) for n, s in zip(names, seeds, strict=False)]
        fit(tmp_path / "-".join(names), found, module, max_steps=5)
        return module.evaluated, found

    alone = [measured([name]) for name in BASES]
    together, found = measured(list(BASES))
    for (_, (single,)), own in zip(alone, found, strict=True):
        np.testing.assert_array_equal(single.history.variance, own.history.variance)
        np.testing.assert_array_equal(single.history["standard_error"], own.history["standard_error"])
    sampling = len(single.history) * single.session.evaluations
    assert together == sampling + sum(count - sampling for count, _ in alone)  # checks and gains before training remain
    # Trackers with other latents keep to their own, and samples of an earlier training are not taken for this one.
    _, (_, other) = measured(["pca", "fourier"], (0, 1))
    assert not np.array_equal(other.history.variance, alone[1][1][0].history.variance)
    torch.manual_seed(1)
    fit(tmp_path / "again", [*found[:2]], OwnModule(), max_steps=1)
    torch.manual_seed(1)
    fit(
        tmp_path / "fresh",
        [fresh := tracker(name="fourier", basis="fourier", num_samples=32)],
        OwnModule(),
        max_steps=1,
    )
    np.testing.assert_array_equal(found[1].history.variance, fresh.history.variance)


def test_trackers_share_the_repetitions_for_their_errors_too(tmp_path, monkeypatch):
    calls, generate = [], SpectralProbe.generate
    monkeypatch.setattr(SpectralProbe, "generate", lambda self, *rest: calls.append(self) or generate(self, *rest))
    counts = []
    for names in (["pca"], ["pca", "fourier", "patch"]):
        calls.clear()
        found = [tracker(name=n, basis=BASES[n], sampler=None) for n in names]
        fit(tmp_path / "-".join(names), found, OwnModule(), max_steps=5)
        counts.append(len(calls))
        assert all("repeated" in own.history.metadata["standard_error"] for own in found)
    assert counts[0] == counts[1] == 4 + 1 + 2  # rows; at step 0 again, and a pair of samplers


def test_a_theory_given_for_a_network_starts_from_the_gain_measured_in_its_own_modes(tmp_path):
    """A frozen network: whatever the theory's modes, at time 0 the prediction is what the gains make."""
    objective = Objective(1e-9, Preconditioning("edm"))
    theories = [FullWidthConvolution(objective), OneLayer(objective), NonCenteredOneLayer(objective)]
    data, found = field(2, ((1.0, 0.0), (0.0, 0.4))), []
    for theory in theories:
        name, options = type(theory).__name__, {"num_samples": 32, "sampler": None}
        found.append(
            (tracker(basis="patch", name=name, **options), AnalyticOverlay(theory, "learning_rate", tracker=name))
        )
    run(tmp_path, FullWidthConvDenoiser(list(data.shape), SAMPLER, init=0.3, optimizer=sgd(1e-12)), data, found, 2)
    for own, overlay in found:
        assert not overlay.predicted.natural.own
        np.testing.assert_allclose(overlay.history.variance[0], own.history.variance[0], rtol=1e-4)


def test_a_basis_made_before_is_taken_as_it_is_and_a_convolution_needs_all_modes(tmp_path):
    basis = PCABasis.from_moments(torch.zeros(8), torch.diag(torch.arange(8.0, 0, -1)), shape=(8,))
    fit(tmp_path, [own := tracker(basis=basis)], max_steps=1)
    assert own.history.target.tolist() == [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    data, few = field(), [(tracker(basis=Eigenmodes(3), sampler=None), AnalyticOverlay())]
    with pytest.raises(ValueError, match=r"all 8 modes .* got 3 eigenmodes.*`num_modes`"):
        run(tmp_path / "few", FullWidthConvDenoiser(list(data.shape), SAMPLER, optimizer=sgd(1e-3)), data, few, 2)
    assert not (tmp_path / "few").exists() or list((tmp_path / "few").iterdir()) == []
