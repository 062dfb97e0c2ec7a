"""A user's module trained with and without our callbacks, and what exactly trained networks would return."""

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter
from spectral_lightning.spectra import PCABasis
from spectral_lightning.theory import Objective, OneLayer, Preconditioning
from tests.support.flat import flat_tracker
from tests.support.gaussian_images import covariance, images
from tests.support.ideal_networks import Ideal
from tests.support.tiny_training import same, trainer

STEPS = 10
SCHEDULE = [0, 1, 3, 10]  # two per factor of ten
SIDE = 8


def population():
    """The eigenmodes of the known covariance, which no sample has."""
    matrix = covariance()
    return PCABasis.from_moments(torch.zeros(len(matrix)), matrix, shape=(1, SIDE, SIDE))


def tracker(denoiser, **options):
    return flat_tracker(**{"denoiser": denoiser, "num_samples": 8, "per_decade": 2, "figures": False, **options})


def three(denoiser, kind, **options):
    """All three callbacks, the theory that of a linear network in the same convention."""
    theory = OneLayer(Objective(learning_rate=1e-3, preconditioning=Preconditioning(kind)))
    return [tracker(denoiser, **options), AnalyticOverlay(theory), EmergenceFitter()]


def fitted(path, make, callbacks, steps=STEPS, data=None, labels=None):
    """The module after training from one fixed seed, and its Trainer."""
    pl.seed_everything(0, verbose=False)  # the coupling of optimal transport draws from NumPy
    module = make()
    run = trainer(path, callbacks, max_steps=steps)
    tensors = [images(256) if data is None else data, *([] if labels is None else [labels])]
    run.fit(module, DataLoader(TensorDataset(*tensors), batch_size=16, shuffle=True))
    assert run.global_step == steps
    return module, run


def attached_run(tmp_path, monkeypatch, make, callbacks, line, **options):
    """What is promised of every training we are attached to; the tracker's history."""
    said = []  # what trackers say at the start
    monkeypatch.setattr("spectral_lightning.callbacks.training.rank_zero_info", said.append)
    plain, plain_trainer = fitted(tmp_path / "plain", make, [], **options)
    drawn = torch.random.get_rng_state()
    tracked, tracked_trainer = fitted(tmp_path / "tracked", make, callbacks, **options)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert same(plain, tracked)
    assert same(_moments(plain_trainer), _moments(tracked_trainer))
    history = callbacks[0].history
    assert history.steps.tolist() == SCHEDULE
    assert np.isfinite(history.variance).all()
    assert not history["non_finite"].any()
    # A line on passes that cannot be recovered may follow.
    first, *_ = [text for text in said if text.startswith("SpectralTracker: ")]
    assert first.startswith(f"SpectralTracker: {line}")
    assert (history.variance[0] != history.variance[-1]).all()
    if len(callbacks) > 1:
        assert (tmp_path / "tracked" / "spectral" / "emergence.csv").exists()
        assert np.isfinite(callbacks[1].history.variance).all()
    return history


def _moments(trainer):
    state = trainer.optimizers[0].state_dict()["state"]
    return {f"{i}.{name}": value for i, one in state.items() for name, value in one.items()}


class ExactNetwork(Ideal):
    """What training on the images would end at. One parameter without effect, so that there is something to train."""

    def __init__(self, of_time, target, wrap=lambda out: out, order="x-time"):
        matrix = covariance()
        given = torch.zeros(len(matrix), dtype=torch.float64), matrix
        super().__init__(of_time, target, 1.0, lambda out: wrap(out + 0 * self.anchor), order, given)
        self.anchor = torch.nn.Parameter(torch.zeros(1))


def exact_run(tmp_path, make, denoiser, rtol=1e-3):
    """With the exact network the variances are the fixed point, and the gains Wiener's; the history."""
    measured = tracker(denoiser, num_samples=128, basis=population(), track_gain=True)
    fitted(tmp_path, make, [measured], steps=1)
    history = measured.history
    variance = torch.linalg.eigvalsh(covariance()).flip(0).numpy()
    np.testing.assert_allclose(history.target, variance, rtol=1e-9)
    # float32 networks at sigma = 80 and more, where a rounding of 6e-8 is 1e-5 of the smallest modes
    for row in history.variance:
        np.testing.assert_allclose(row, history.fixed_point, rtol=rtol)
    wiener = variance / (variance + history["levels"][:, None] ** 2)
    np.testing.assert_allclose(history["gain"][-1], wiener, rtol=rtol, atol=1e-5)
    return history
