"""Wrong arguments and situations: a clear error with nothing half-written, or a plainly stated consequence."""

import re
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter, SpectralTracker
from spectral_lightning.datamodules import GaussianDataModule, PatchDataModule
from spectral_lightning.models import DiffusionModule, LinearDenoiser, ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Objective, OneLayer
from tests.support.tiny_training import SAMPLER, THEORY, OwnModule, examples, loader, tracker, trainer, without_drawing


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    without_drawing(monkeypatch)


ARGUMENTS = {
    "unknown criterion": (
        lambda: EmergenceFitter(criterion="median"),
        "`criterion` must be one of 'geometric', 'harmonic', 'arithmetic', got 'median'",
    ),
    "fraction above 1": (
        lambda: EmergenceFitter(criterion=1.5),
        "`criterion` must be a number strictly between 0 and 1, got 1.5. Or choose one of",
    ),
    "fraction of 0": (lambda: EmergenceFitter(criterion=0.0), "`criterion` must be a number strictly between 0 and 1"),
    "gray factor below 1": (
        lambda: EmergenceFitter(gray_factor=0.5),
        "`gray_factor` must be a number of at least 1, got 0.5",
    ),
    "gray factor NaN": (lambda: EmergenceFitter(gray_factor=float("nan")), "`gray_factor` must be a positive, finite"),
    "no figures (fitter)": (
        lambda: EmergenceFitter(figures_per_decade=0),
        "`figures_per_decade` must be a positive integer, got 0",
    ),
    "no figures (overlay)": (
        lambda: AnalyticOverlay(figures_per_decade=0),
        "`figures_per_decade` must be a positive integer, got 0",
    ),
    "unknown clock": (
        lambda: AnalyticOverlay(clock="wall"),
        "`clock` must be one of 'auto', 'learning_rate', 'fitted', got 'wall'",
    ),
    "calibration after more than all": (
        lambda: AnalyticOverlay(calibrate_after=2),
        "`calibrate_after` must be a number strictly between 0 and 1, got 2",
    ),
    "theory by name": (
        lambda: AnalyticOverlay(theory="OneLayer"),
        "`theory` must be a family of `spectral_lightning.theory`, got 'OneLayer'",
    ),
    "odd number of orthogonal latents": (
        lambda: tracker(num_samples=15),
        "`num_samples`",
    ),
    "no samples": (lambda: tracker(num_samples=0), "`num_samples`"),
    "unknown latents": (
        lambda: tracker(latents="sobol"),
        "`latents` must be one of 'orthogonal', 'independent', got 'sobol'",
    ),
    "negative seed": (lambda: tracker(seed=-1), "`seed` must be an integer of at least 0, got -1"),
    "no measurements": (lambda: tracker(per_decade=0), "`per_decade` must be a positive integer, got 0"),
    "unknown moments": (
        lambda: tracker(moments="exact"),
        "`moments` must be one of 'sample', 'population', got 'exact'",
    ),
    "no reference": (
        lambda: tracker(max_samples=0),
        "`max_samples` must be a positive integer, got 0",
    ),
    "empty batches": (lambda: tracker(batch_size=0), "`batch_size` must be a positive integer, got 0"),
    "no logged modes": (lambda: tracker(log_modes=0), "`log_modes` must be a positive integer, got 0"),
    "name with a slash": (lambda: tracker(name="runs/a"), "`name` must be a plain, non-empty word, got 'runs/a'"),
    "empty name": (lambda: tracker(name=""), "`name` must be a plain, non-empty word, got ''"),
    "name of the parent directory": (lambda: tracker(name=".."), "`name` must be a plain, non-empty word, got '..'"),
    "unknown solver": (lambda: Sampler(solver="dpm"), "`solver` must be one of 'euler', 'heun', got 'dpm'"),
    "increasing grid": (
        lambda: Sampler(grid=(0.1, 1.0, 10.0)),
        "`grid` must hold at least two finite, strictly decreasing noise levels",
    ),
    "empty folder": (lambda: PatchDataModule(folder=".").setup(), "`folder` must hold images"),
    "missing folder": (
        lambda: PatchDataModule(folder="no-such-folder").setup(),
        "`folder` must be an existing folder, got 'no-such-folder'",
    ),
}


@pytest.mark.parametrize(("make", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_wrong_arguments_are_named(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        make()


# Situations that only a training shows.


class Stream(IterableDataset):
    def __iter__(self):
        return iter(examples())


class Dictionaries(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return {"image": examples()[index], "label": index % 2}


class Bytes(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.full((8,), index, dtype=torch.uint8)


class Silent(pl.LightningModule):
    """A module that offers no denoiser."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def training_step(self, batch, batch_idx):
        raise AssertionError("training began")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Broken(OwnModule):
    def __init__(self, spoil):
        super().__init__()
        self.spoil = spoil

    def denoise(self, z, sigma):
        return self.spoil(super().denoise(z, sigma), sigma)

    def training_step(self, batch, batch_idx):
        raise AssertionError("training began")


def with_nan():
    data = examples()
    data[5, 2] = float("nan")
    return data


def _linear(**options):
    grid = Sampler(num_steps=3, sigma_min=0.1, sigma_max=5.0)
    return LinearDenoiser(8, sampler=grid, objective="samples", **options)


def _images():
    return torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))


# name -> (callbacks, module, data, error, message)
SITUATIONS = {
    "more modes than dimensions": (
        lambda: [tracker(num_modes=9)],
        OwnModule,
        loader,
        ValueError,
        "`num_modes` must be at most the dimension of the data, 8, got 9.",
    ),
    "images where vectors are wanted": (
        lambda: [tracker()],
        OwnModule,
        lambda: loader(_images()),
        ValueError,
        "It was called with examples of shape (1, 4, 4), the shape of the data",
    ),
    "vectors of another length": (
        lambda: [tracker(data=examples(dim=6))],
        OwnModule,
        loader,
        ValueError,
        "It was called with examples of shape (6,)",
    ),
    "NaN in the data": (
        lambda: [tracker()],
        OwnModule,
        lambda: loader(with_nan()),
        ValueError,
        "`batch` must be finite, got 1 of 64 examples with NaN or infinity. Find them in the dataset",
    ),
    "constant data": (
        lambda: [tracker()],
        OwnModule,
        lambda: loader(torch.ones(64, 8)),
        ValueError,
        "The data must vary, got 64 examples that are all the same",
    ),
    "one example": (
        lambda: [tracker(data=examples(1))],
        OwnModule,
        loader,
        ValueError,
        "The data must vary, got 1 examples that are all the same",
    ),
    "empty data": (
        lambda: [tracker(data=torch.zeros(0, 8))],
        OwnModule,
        loader,
        ValueError,
        "The data must hold at least one example, got none.",
    ),
    "an IterableDataset": (
        lambda: [tracker()],
        OwnModule,
        lambda: loader(Stream(), shuffle=False),
        TypeError,
        "the training dataloader must be over a map-style dataset, got an IterableDataset, which reading would use up.",
    ),
    "several loaders": (
        lambda: [tracker()],
        OwnModule,
        lambda: {"a": loader(), "b": loader()},
        TypeError,
        "the training dataloader must be a DataLoader or Dataset, got dict",
    ),
    "data that are no data": (
        lambda: [tracker(data=np.zeros((64, 8)))],
        OwnModule,
        loader,
        TypeError,
        "`data` must be a DataLoader or Dataset, got ndarray",
    ),
    "dictionaries without a key": (
        lambda: [tracker()],
        OwnModule,
        lambda: loader(Dictionaries()),
        ValueError,
        "`batch_key` must name the examples in the batch, one of ['image', 'label'], got None.",
    ),
    "a wrong key": (
        lambda: [tracker(batch_key="images")],
        OwnModule,
        lambda: loader(Dictionaries()),
        ValueError,
        "`batch_key` must name the examples in the batch, one of ['image', 'label'], got 'images'.",
    ),
    "a key of integers": (
        lambda: [tracker(batch_key="label")],
        OwnModule,
        lambda: loader(Dictionaries()),
        TypeError,
        "Examples must be floating-point numbers as the network sees them, got torch.int64",
    ),
    "a position too far": (
        lambda: [tracker(batch_key=1)],
        OwnModule,
        lambda: loader(TensorDataset(examples())),
        ValueError,
        "`batch_key` must be a position in a batch of 1 elements, got 1.",
    ),
    "whole-number images": (
        lambda: [tracker()],
        OwnModule,
        lambda: loader(Bytes()),
        TypeError,
        "got torch.uint8",
    ),
    "no denoiser": (
        lambda: [tracker()],
        Silent,
        loader,
        TypeError,
        "Silent offers no `denoise(z, sigma)`. Give the module a method `denoise(z, sigma)`",
    ),
    "a denoiser that returns a tuple": (
        lambda: [tracker()],
        lambda: Broken(lambda out, sigma: (out,)),
        loader,
        TypeError,
        "`denoiser` must return a tensor of shape (16, 8), got tuple. Many libraries wrap their output",
    ),
    "a denoiser of another shape": (
        lambda: [tracker()],
        lambda: Broken(lambda out, sigma: out[:, :4]),
        loader,
        ValueError,
        "`denoiser` must return the shape of its input, (16, 8), got (16, 4).",
    ),
    "a denoiser that gives NaN": (
        lambda: [tracker()],
        lambda: Broken(lambda out, sigma: out * float("nan")),
        loader,
        ValueError,
        "`denoiser` must return finite values, got NaN or infinity at sigma = 0.002.",
    ),
    "a denoiser that gives NaN at one level": (
        lambda: [tracker()],
        lambda: Broken(lambda out, sigma: torch.where(sigma[:, None] > 10, torch.nan, out)),
        loader,
        ValueError,
        "`denoiser` must return finite values, got NaN or infinity at sigma = 80.",
    ),
    "a given denoiser that fails": (
        lambda: [tracker(denoiser=lambda z, sigma: torch.ones(3) @ z)],
        OwnModule,
        loader,
        ValueError,
        "It was called with examples of shape (8,)",
    ),
    "overlay without a tracker": (
        lambda: [AnalyticOverlay(theory=THEORY)],
        OwnModule,
        loader,
        ValueError,
        "AnalyticOverlay needs a SpectralTracker named 'spectral' among the callbacks, got none. Add SpectralTracker()",
    ),
    "fitter without a tracker": (
        lambda: [EmergenceFitter()],
        OwnModule,
        loader,
        ValueError,
        "EmergenceFitter needs a SpectralTracker named 'spectral' among the callbacks, got none.",
    ),
    "a tracker of another name": (
        lambda: [tracker(name="mine"), EmergenceFitter(tracker="main")],
        OwnModule,
        loader,
        ValueError,
        "needs a SpectralTracker named 'main' among the callbacks, got those named 'mine'.",
    ),
    "levels a linear denoiser has no weights for": (
        lambda: [tracker()],
        _linear,
        loader,
        ValueError,
        "`sigma` must be one of the levels this denoiser has weights for",
    ),
    "population moments of a plain loader": (
        lambda: [tracker(moments="population")],
        OwnModule,
        loader,
        ValueError,
        "`moments='population'` needs a datamodule with `population_moments()`, got NoneType. Use moments='sample'.",
    ),
    "an unstable learning rate": (
        lambda: [tracker(sampler=None), AnalyticOverlay(), EmergenceFitter()],
        lambda: LinearDenoiser(8, sampler=SAMPLER, optimizer=partial(torch.optim.SGD, lr=10.0)),
        lambda: GaussianDataModule(8, num_samples=64, batch_size=8, num_val_samples=0),
        ValueError,
        "`lr` must be at most",
    ),
    "an exact objective without moments": (
        lambda: [tracker(sampler=None)],
        lambda: LinearDenoiser(8, sampler=SAMPLER),
        loader,
        ValueError,
        "or train with objective='samples'",
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_wrong_situations_stop_before_training_with_nothing_written(situation, tmp_path):
    make_callbacks, make_module, make_data, error, message = situation
    module, data = make_module(), make_data()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run = trainer(tmp_path, make_callbacks())
    with pytest.raises(error, match=re.escape(message)):
        run.fit(module, data)
    assert run.global_step == 0
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert list(tmp_path.iterdir()) == []


# Situations that go on, and say what follows.


def fit(path, callbacks, module, data, **options):
    trainer(path, callbacks, **options).fit(module, data)


def test_fewer_examples_than_dimensions_leave_null_modes(tmp_path):
    own, fitter = tracker(), EmergenceFitter()
    message = "reference has 5 examples in 8 dimensions: at least 4 modes .* have no variance.* left out of every fit"
    with pytest.warns(UserWarning, match=message):
        fit(tmp_path, [own, fitter], OwnModule(), loader(examples(5), batch_size=5))
    assert own.history["null"].tolist() == [False] * 4 + [True] * 4
    assert own.session.results.shown_modes == [0, 1, 2, 3]
    text = (tmp_path / "spectral" / "emergence.csv").read_text().splitlines()
    assert [line.split(",")[7] for line in text[5:]] == ["null mode"] * 4


def test_samples_that_are_not_finite_are_counted_and_left_out(tmp_path):
    class Overflowing(OwnModule):
        def denoise(self, z, sigma):
            out = super().denoise(z, sigma)
            spoil = self.global_step > 0 and len(z) == 16
            return torch.cat([out[:2] * torch.nan, out[2:]]) if spoil else out

    own = tracker()
    with pytest.warns(UserWarning, match="2 of 16 samples at step 1 held NaN or infinity and were left out"):
        fit(tmp_path, [own], Overflowing(), loader(), max_steps=1)
    assert own.history["non_finite"].tolist() == [0, 2]
    assert np.isfinite(own.history.variance).all()


def test_a_training_that_diverges_keeps_the_rows_before(tmp_path):
    own = tracker()

    class Diverging(OwnModule):
        def denoise(self, z, sigma):
            out = super().denoise(z, sigma)
            return out * torch.nan if self.global_step >= 5 and not torch.is_grad_enabled() else out

    with pytest.warns(UserWarning, match="16 of 16 samples at step 5 held NaN or infinity"):
        fit(tmp_path, [own, EmergenceFitter()], Diverging(), loader())
    # The rows before are as they were; those after say that there was nothing to measure, and the training went on.
    assert own.history.steps.tolist() == [0, 1, 2, 5, 10]
    assert np.isfinite(own.history.variance[:3]).all()
    assert np.isnan(own.history.variance[3:]).all()
    assert own.history["non_finite"].tolist() == [0, 0, 0, 16, 16]
    assert (tmp_path / "spectral" / "history.npz").exists()


def test_an_empty_training_set_is_never_measured(tmp_path):
    own = tracker()
    with pytest.warns(UserWarning, match="zero"):
        fit(tmp_path, [own], OwnModule(), loader(examples(0), shuffle=False))
    assert own.history is None
    assert list(tmp_path.iterdir()) == []


def test_few_modes_give_no_exponent_but_a_reason(tmp_path):
    fitter = EmergenceFitter()
    fit(tmp_path, [tracker(), fitter], OwnModule(), loader())
    laws = [fitter.result.measured_law(way) for way in ("rising", "falling")]
    assert [law.reason for law in laws] == ["fewer than 10 modes crossed"] * 2
    assert all(np.isnan(law.exponent) for law in laws)


def test_a_theory_on_the_users_word_is_said_to_be_one(tmp_path):
    overlay = AnalyticOverlay(theory=OneLayer(Objective(1e-3)))
    fit(tmp_path, [tracker(), overlay], OwnModule(), loader(), max_steps=1)
    assert "supplied by the user, not verified" in overlay.describe_departures()


def test_a_deep_module_says_what_it_does_not_meet(tmp_path):
    overlay = AnalyticOverlay()
    module = DiffusionModule(ResidualMLP(8, 16, 1, 8))
    fit(tmp_path, [tracker(), overlay], module, loader(), max_steps=1)
    text = overlay.describe_departures()
    for part in ("ResidualMLP trained", "one network shared by all levels", "Adam used"):
        assert part in text


def test_all_sampled_modes_are_named_when_the_tracker_is_made_without_options():
    assert SpectralTracker().state_key == "SpectralTracker[spectral]"
