"""Trackers in Fourier and patch bases beside their theory, several of them at once, and the denoiser's own gains."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from spectral_lightning.callbacks import AnalyticOverlay
from spectral_lightning.datamodules import GaussianDataModule, GaussianFieldDataModule
from spectral_lightning.models import (
    DiffusionModule,
    FullWidthConvDenoiser,
    LinearDenoiser,
    LocalConvDenoiser,
    ResidualMLP,
)
from spectral_lightning.report import RunFiles
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import FourierModes, PatchComponents, PCABasis, SpectralHistory, load_basis
from spectral_lightning.theory import FullWidthConvolution, NonCenteredOneLayer, Objective, OneLayer, Preconditioning
from tests.support.flat import flat_tracker
from tests.support.tiny_training import without_drawing

SAMPLER = Sampler(num_steps=6)
BASES = {
    "pca": "pca",
    "fourier": "fourier",
    "bands": FourierModes(bands=2),
    "patch": PatchComponents(size=3),
    "valid patch": PatchComponents(size=3, stride=2, boundary="valid"),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_drawing(monkeypatch)


def field(channels=1, **options):
    own = {"channel_covariance": [[1.0, 0.3], [0.3, 0.5]]} if channels == 2 else {}
    defaults = {"size": [8], "channels": channels, "exponent": 2.0, "scale": 3.0, "exact_moments": True}
    return GaussianFieldDataModule(**{**defaults, **own, "num_samples": 64, "batch_size": 8, **options})


def sgd(rate):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


def pairs(names=BASES, per_decade=4, **options):
    """A tracker with an overlay for each of the bases."""
    found = []
    for name in names:
        tag = name.replace(" ", "_")
        tracker = flat_tracker(basis=BASES[name], name=tag, per_decade=per_decade, **{"num_samples": 32, **options})
        found.append((tracker, AnalyticOverlay(tracker=tag)))
    return found


def fit(root, model, data, callbacks, max_steps=60, ckpt_path=None, saver=None):
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        limit_val_batches=0,
        logger=False,
        default_root_dir=root,
        enable_checkpointing=saver is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, *([saver] if saver else [])],
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return trainer


def flat(found):
    return [callback for pair in found for callback in pair]


FAMILIES = {
    # name: channels, model, learning rate
    "linear": (1, LinearDenoiser, 0.02),
    "full width": (2, FullWidthConvDenoiser, 3e-3),
    "local": (1, LocalConvDenoiser, 4e-3),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_lies_on_its_theory_in_every_basis(tmp_path, family):
    channels, model, rate = FAMILIES[family]
    data = field(channels)
    found = pairs(track_gain=True)
    fit(tmp_path, model(list(data.shape), sampler=SAMPLER, init=0.1, optimizer=sgd(rate)), data, flat(found))
    for tracker, overlay in found:
        measured, predicted = tracker.history, overlay.history
        assert overlay.departures == []
        assert measured.steps.tolist() == predicted.steps.tolist()
        # Complete latent blocks: what is left is single precision.
        np.testing.assert_allclose(measured.variance, predicted.variance, rtol=1e-4, err_msg=tracker.session.name)
        np.testing.assert_allclose(measured["gain"], predicted["gain"], rtol=0, atol=1e-5, err_msg=tracker.session.name)
        moved = np.abs(np.log(measured.variance[-1] / measured.variance[0]))
        assert moved.max() > 0.3  # something was learnt, so that lying on the curve means something
        later = np.ceil(1.1 * measured.steps)
        shifted = overlay.predicted.natural.variance(later, SAMPLER, overlay.predicted._gain(measured))
        steep = moved > 0.3
        assert (np.abs(shifted / predicted.variance - 1).max(axis=0)[steep] > 0.005).all()


def naive_generated_covariance(step, covariance, rate, init):
    """Dense gradient descent on the expected loss under EDM (sigma_data 0.5), then Heun, written out with matrices."""
    eye = np.eye(len(covariance))
    levels = [(80 ** (1 / 7) + i / 5 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(6)] + [0.0]
    maps = {}
    for sigma in levels[:-1]:
        total = sigma**2 + 0.25
        skip, product, weight = 0.25 / total, 0.5 * sigma / total, total / (0.5 * sigma) ** 2
        w = init * eye
        for _ in range(step):
            a = skip * eye + product * w
            w = w - rate * 2 * weight * product * (a @ (covariance + sigma**2 * eye) - covariance)
        maps[sigma] = skip * eye + product * w
    z = levels[0] * eye
    for sigma, following in zip(levels[:-1], levels[1:], strict=True):
        slope = (z - maps[sigma] @ z) / sigma
        ahead = z + (following - sigma) * slope
        if following > 0:
            ahead = z + (following - sigma) * (slope + (ahead - maps[following] @ ahead) / following) / 2
        z = ahead
    return z @ z.T


def test_fourier_and_patch_variances_of_a_dense_network_on_data_that_are_not_stationary(tmp_path):
    data = GaussianDataModule(dim=6, spectrum="power_law", scale=3.0, exact_moments=True, num_samples=32, batch_size=8)
    found = pairs(("fourier", "patch"), num_samples=24)
    fit(tmp_path, LinearDenoiser(6, SAMPLER, init=0.1, optimizer=sgd(0.05)), data, flat(found), max_steps=20)
    covariance = data.population.covariance.numpy()
    phases = np.exp(-2j * np.pi * np.outer(np.arange(6), np.arange(6)) / 6) / np.sqrt(6)
    patches = np.stack([np.roll(np.eye(6), -p, axis=1)[:3] for p in range(6)])  # [position, tap, pixel]
    spread = np.mean([p @ covariance @ p.T for p in patches], axis=0)
    components = np.linalg.eigh(spread)[1][:, ::-1]
    (fourier, _), (patch, _) = found
    for i, step in enumerate(fourier.history.steps):
        made = naive_generated_covariance(int(step), covariance, 0.05, 0.1)
        power = np.real(np.diag(phases @ made @ phases.conj().T))
        by_label = {f"k={k}": power[k] for k in range(4)}
        expected = [by_label[label] for label in fourier.basis.labels]
        np.testing.assert_allclose(fourier.history.variance[i], expected, rtol=1e-4)
        seen = np.mean([p @ made @ p.T for p in patches], axis=0)
        np.testing.assert_allclose(patch.history.variance[i], np.diag(components.T @ seen @ components), rtol=1e-4)
    for tracker, overlay in found:
        np.testing.assert_allclose(overlay.history.variance, tracker.history.variance, rtol=1e-5)


def test_gains_are_those_of_the_weights(tmp_path):
    data = field()
    model = LinearDenoiser(list(data.shape), SAMPLER, init=0.1, optimizer=lambda p: torch.optim.Adam(p, lr=0.05))
    tracker = flat_tracker(num_samples=32, track_gain=True)
    fit(tmp_path, model, data, [tracker], max_steps=15)
    modes = tracker.basis.modes.numpy()
    for level, sigma in enumerate(SAMPLER.levels):
        total = sigma**2 + 0.25
        weight = model.network.weight[level].detach().double().numpy()
        dense = 0.25 / total * np.eye(8) + 0.5 * sigma / total * weight
        np.testing.assert_allclose(
            tracker.history["gain"][-1, level], np.diag(modes.T @ dense @ modes), rtol=0, atol=1e-5
        )
    assert tracker.history["gain"].shape == (len(tracker.history), len(SAMPLER.levels), 8)
    np.testing.assert_array_equal(tracker.history["gain"][0], tracker.history["initial_gain"])


def count_evaluations(model):
    model.evaluated = 0
    denoise = model.denoise

    def counted(z, sigma, label=None):
        if not torch.is_grad_enabled():
            model.evaluated += len(z)
        return denoise(z, sigma, label)

    model.denoise = counted
    return model


def mlp(seed=0):
    torch.manual_seed(seed)
    return DiffusionModule(ResidualMLP([1, 8], 16, 1, 8))


@pytest.mark.slow
def test_trackers_with_the_same_latents_sample_once_and_measure_what_each_would_alone(tmp_path):
    def run(names, root):
        torch.manual_seed(0)
        model, data = count_evaluations(mlp()), field(num_val_samples=0)
        trackers = [tracker for tracker, _ in pairs(names, sampler=SAMPLER)]
        fit(root, model, data, trackers, max_steps=20)
        return model.evaluated, [tracker.history for tracker in trackers]

    alone = [run([name], tmp_path / name.replace(" ", "_")) for name in BASES]
    together, histories = run(list(BASES), tmp_path / "all")
    for (_, (single,)), history in zip(alone, histories, strict=True):
        np.testing.assert_array_equal(single.variance, history.variance)
        np.testing.assert_array_equal(single["standard_error"], history["standard_error"])
    sampling = len(histories[0]) * 32 * SAMPLER.evaluations
    start = alone[0][0] - sampling  # checks and gains before training
    assert together == sampling + len(BASES) * start


def test_trackers_with_other_latents_keep_to_their_own(tmp_path):
    first = flat_tracker(num_samples=32, sampler=SAMPLER, name="a")
    second = flat_tracker(num_samples=32, sampler=SAMPLER, name="b", seed=1, basis="fourier")
    fit(tmp_path, mlp(), field(), [first, second], max_steps=5)
    alone = flat_tracker(num_samples=32, sampler=SAMPLER, name="b", seed=1, basis="fourier")
    fit(tmp_path / "alone", mlp(), field(), [alone], max_steps=5)
    assert second.session.probe.sampling_key != first.session.probe.sampling_key
    np.testing.assert_array_equal(second.history["initial_gain"], alone.history["initial_gain"])


def test_samples_of_an_earlier_training_are_not_taken_for_this_one(tmp_path):
    trackers = [
        flat_tracker(num_samples=32, sampler=SAMPLER, name=n, basis=b) for n, b in (("a", "pca"), ("b", "fourier"))
    ]
    fit(tmp_path / "1", mlp(0), field(), trackers, max_steps=3)
    fit(tmp_path / "2", mlp(1), field(), trackers, max_steps=3)
    fresh = flat_tracker(num_samples=32, sampler=SAMPLER, name="b", basis="fourier")
    fit(tmp_path / "3", mlp(1), field(), [fresh], max_steps=3)
    np.testing.assert_array_equal(trackers[1].history.variance[0], fresh.history.variance[0])


def test_resumed_in_a_fourier_basis_equals_uninterrupted(tmp_path):
    def run(root, steps, **options):
        found = pairs(("fourier", "patch"), track_gain=True)
        data = GaussianDataModule(dim=8, spectrum="power_law", exact_moments=True, num_samples=64, batch_size=8)
        fit(root, LinearDenoiser(8, SAMPLER, init=0.1, optimizer=sgd(0.05)), data, flat(found), steps, **options)
        return found

    whole = run(tmp_path / "whole", 30)
    saver = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=13)
    run(tmp_path / "cut", 13, saver=saver)
    again = run(tmp_path / "cut", 30, ckpt_path=saver.best_model_path)
    for (tracker, overlay), (other, predicted) in zip(whole, again, strict=True):
        for name in ("step", "variance", "gain"):
            np.testing.assert_array_equal(tracker.history[name], other.history[name])
            np.testing.assert_allclose(overlay.history[name], predicted.history[name], rtol=1e-12)
        assert (
            load_basis(RunFiles(tmp_path / "cut" / tracker.session.name) / "basis.pt").fingerprint
            == tracker.basis.fingerprint
        )
    assert load_basis(tmp_path / "cut" / "fourier" / "basis.pt").labels == whole[0][0].basis.labels


def test_what_the_files_hold(tmp_path):
    (tracker, _), *_ = found = pairs(("bands",), track_gain=True)
    data = field(2)
    fit(tmp_path, FullWidthConvDenoiser(list(data.shape), SAMPLER, optimizer=sgd(1e-3)), data, flat(found), max_steps=5)
    history = SpectralHistory.load(tmp_path / "bands" / "history.npz")
    assert history.metadata["modes"] == tracker.basis.labels
    assert history["multiplicity"].tolist() == tracker.basis.multiplicity.tolist()
    assert history["multiplicity"].sum() == 16  # every coordinate of two channels of eight pixels, once
    np.testing.assert_array_equal(history["gain"], tracker.history["gain"])
    assert "gain" in SpectralHistory.load(tmp_path / "bands" / "prediction.npz")


def test_a_theory_given_for_a_network_starts_from_the_gain_measured_in_its_own_modes(tmp_path):
    """A frozen network: whatever the theory's modes, at time 0 the prediction is what the gains make."""
    objective = Objective(1e-9, Preconditioning("edm"))
    theories = {
        "convolution": FullWidthConvolution(objective),
        "layer": OneLayer(objective),
        "affine": NonCenteredOneLayer(objective),
    }
    data = field(2, channel_covariance=[[1.0, 0.0], [0.0, 0.4]])
    model = FullWidthConvDenoiser(list(data.shape), SAMPLER, init=0.3, optimizer=sgd(1e-12))
    callbacks = []
    for name, theory in theories.items():
        tracker = flat_tracker(num_samples=32, basis="patch", name=name)
        callbacks += [tracker, AnalyticOverlay(theory, clock="learning_rate", tracker=name)]
    fit(tmp_path, model, data, callbacks, max_steps=2)
    for tracker, overlay in zip(callbacks[::2], callbacks[1::2], strict=True):
        assert not overlay.predicted.natural.own
        np.testing.assert_allclose(overlay.history.variance[0], tracker.history.variance[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"basis": "wavelets"}, ValueError, "`basis` must be one of 'pca', 'fourier', 'patch', got 'wavelets'"),
        ({"basis": 3}, TypeError, "`basis` must be one of 'pca', 'fourier', 'patch', a recipe or a basis, got 3"),
    ],
)
def test_a_wrong_basis_says_what_is_right(arguments, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        flat_tracker(**arguments)


def test_a_basis_made_before_is_taken_as_it_is(tmp_path):
    basis = PCABasis.from_moments(torch.zeros(8), torch.diag(torch.arange(8.0, 0, -1)), shape=(1, 8))
    tracker = flat_tracker(num_samples=16, sampler=SAMPLER, basis=basis)
    fit(tmp_path, mlp(), field(), [tracker], max_steps=2)
    assert tracker.history.target.tolist() == [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_a_convolution_needs_all_modes_of_the_data(tmp_path):
    data = field()
    model = FullWidthConvDenoiser(list(data.shape), SAMPLER, optimizer=sgd(1e-3))
    with pytest.raises(ValueError, match=r"needs all 8 modes of the data, got 3\. Leave `num_modes`"):
        fit(tmp_path, model, data, [flat_tracker(num_modes=3, num_samples=16), AnalyticOverlay()], max_steps=2)


def test_data_without_pixels_have_no_frequencies(tmp_path):
    data = GaussianDataModule(dim=8, num_samples=32, batch_size=8)
    model = DiffusionModule(ResidualMLP([2, 2, 2, 1], 8, 1, 4))
    tracker = flat_tracker(basis="fourier", num_samples=16, transform=lambda x: x.reshape(-1, 2, 2, 2, 1))
    with pytest.raises(ValueError, match=r"`shape` must be \[N\], \[C, N\] or \[C, H, W\]"):
        fit(tmp_path, model, data, [tracker], max_steps=2)
