"""Attaching the callbacks changes no bit of a training."""

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from spectral_lightning.callbacks import SpectralTracker
from tests.support.tiny_training import Body, OwnModule, examples, loader, three, tracker, trainer, without_drawing

pytestmark = pytest.mark.filterwarnings("ignore:The reference has:UserWarning")


class Transformed(Dataset):
    """Rows with noise from ``draw``, a source of randomness that reading the data uses up."""

    def __init__(self, draw):
        self.rows, self.draw = examples(), draw

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index] + 0.1 * torch.as_tensor(self.draw(), dtype=torch.float32)


class OwnGenerator:
    """A transform that holds its generator, as an object."""

    def __init__(self, generator):
        self.generator = generator

    def __call__(self):
        if isinstance(self.generator, torch.Generator):
            return torch.randn(8, generator=self.generator)
        if isinstance(self.generator, random.Random):
            return [self.generator.gauss(0, 1) for _ in range(8)]
        return self.generator.normal(size=8)


def in_closure(generator):
    return lambda: generator.normal(size=8)


class JitteringCollate:
    """A collate function with a generator of its own."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(5)

    def __call__(self, rows):
        batch = torch.stack(rows)
        return batch + 0.1 * torch.randn(batch.shape, generator=self.generator)


class Augmented(OwnModule):
    """Random augmentation of a batch on its way to the step, from a generator of the module's own or the global one."""

    def __init__(self, own=True):
        super().__init__()
        self.generators = {"augmentation": torch.Generator().manual_seed(4) if own else None}

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch * (1 + 0.1 * torch.randn(len(batch), 1, generator=self.generators["augmentation"]))

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch + 0.1 * torch.randn(batch.shape, generator=self.generators["augmentation"])


def _scheduled():
    return OwnModule(scheduled=True)


def _noisy_network():
    return OwnModule(Body(dropout=0.3, norm=True))


def _frozen():
    return OwnModule(frozen=nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)))


# name -> (module, loader, options of the Trainer)
CASES = {
    "plain": (OwnModule, loader, {}),
    "tensor dataset": (OwnModule, lambda: loader(TensorDataset(examples())), {}),
    "generator of the loader": (OwnModule, lambda: loader(generator=torch.Generator().manual_seed(3)), {}),
    "torch transform": (OwnModule, lambda: loader(Transformed(lambda: torch.randn(8))), {}),
    "numpy transform": (OwnModule, lambda: loader(Transformed(lambda: np.random.randn(8))), {}),  # noqa: NPY002
    "python transform": (OwnModule, lambda: loader(Transformed(random.random)), {}),
    "torch generator": (OwnModule, lambda: loader(Transformed(OwnGenerator(torch.Generator().manual_seed(1)))), {}),
    "numpy generator": (OwnModule, lambda: loader(Transformed(OwnGenerator(np.random.default_rng(1)))), {}),
    "numpy random state": (OwnModule, lambda: loader(Transformed(OwnGenerator(np.random.RandomState(1)))), {}),
    "python generator": (OwnModule, lambda: loader(Transformed(OwnGenerator(random.Random(1)))), {}),
    "generator in a closure": (OwnModule, lambda: loader(Transformed(in_closure(np.random.default_rng(1)))), {}),
    "generator in a bound method": (
        OwnModule,
        lambda: loader(Transformed(OwnGenerator(np.random.default_rng(1)).__call__)),
        {},
    ),
    "collate with a generator": (OwnModule, lambda: loader(collate_fn=JitteringCollate()), {}),
    "dropout and batch norm": (_noisy_network, loader, {}),
    "accumulation": (OwnModule, loader, {"accumulate_grad_batches": 3, "max_steps": 6}),
    "learning-rate schedule": (_scheduled, loader, {}),
    "frozen submodule": (_frozen, loader, {}),
    "epochs": (OwnModule, loader, {"max_steps": -1, "max_epochs": 2}),
    "augmentation of a batch": (lambda: Augmented(own=False), loader, {}),
    "augmentation with a generator": (Augmented, loader, {}),
}
SLOW = {
    # The transform draws from the worker's own generator, seeded from the loader's.
    "persistent workers": (
        OwnModule,
        lambda: loader(Transformed(lambda: torch.randn(8)), num_workers=1, persistent_workers=True),
        {"max_steps": 12},
    )
}


def trained(path, case, callbacks, val=False):
    make_module, make_loader, options = case
    pl.seed_everything(11)
    module, data = make_module(), make_loader()
    run = trainer(path, callbacks, **options)
    run.fit(module, data, loader(examples(16, seed=9), shuffle=False) if val else None)
    return module, run


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    assert list(a) == list(b)
    return all(torch.equal(a[key], b[key]) for key in a)


def check(path, case, callbacks=None, others=list, **options):
    """Train without ``callbacks`` and with them, both times among ``others``."""
    callbacks = three() if callbacks is None else callbacks
    plain, run = trained(path / "without", case, others(), **options)
    end = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    tracked, tracked_run = trained(path / "with", case, [*callbacks, *others()], **options)
    assert all(len(c.history) >= 3 for c in callbacks if isinstance(c, SpectralTracker))
    assert run.global_step == tracked_run.global_step > 0
    assert same(plain, tracked)
    after = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    assert torch.equal(end[0], after[0])
    assert end[1:] == after[1:]
    return tracked


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weights_are_the_same_to_the_bit(case, tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    tracked = check(tmp_path, case)
    assert all(p.requires_grad for n, p in tracked.named_parameters() if not n.startswith("frozen"))


def test_weights_are_the_same_with_a_validation_loop(tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    check(tmp_path, (OwnModule, loader, {"val_check_interval": 4, "num_sanity_val_steps": 2}), val=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW.values(), ids=SLOW)
def test_weights_are_the_same_with_workers(case, tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    check(tmp_path, case)


@pytest.mark.slow
def test_weights_are_the_same_with_the_figures_drawn(tmp_path):
    check(tmp_path, CASES["plain"])
    assert sorted(p.name for p in (tmp_path / "with").rglob("*.png")) == ["emergence.png", "overlay.png"]


def test_a_frozen_submodule_stays_in_eval_mode(tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    module, _ = trained(tmp_path, (_frozen, loader, {}), three())
    assert module.seen_frozen_training == [False] * 10
    assert module.body.training
    assert not any(m.training for m in module.frozen.modules())


def everything(**options):
    """Trackers in three bases that share samples, with gains and classes, and one of other latents; all partners."""
    classes = {"per_class": True, "classify": lambda x: (x[:, 0] > 0).long(), "num_classes": 2}
    first = three(track_gain=True, **classes, **options)
    others = [tracker(name=basis, basis=basis, track_gain=True, **classes, **options) for basis in ("fourier", "patch")]
    return [*first, *others, tracker(name="other", seed=1, **options)]


@pytest.mark.parametrize("case", ["plain", "accumulation", "dropout and batch norm", "generator of the loader"])
def test_weights_are_the_same_with_everything_on(case, tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    check(tmp_path, CASES[case], everything())


@pytest.mark.parametrize("weights", ["raw", "ema"])
@pytest.mark.parametrize("first", [True, False], ids=["trackers first", "average first"])
def test_weights_and_their_average_are_the_same(first, weights, tmp_path, monkeypatch):
    """What training leaves in the module is the average; the raw weights are in the average's own copy by then."""
    without_drawing(monkeypatch)
    case = (_noisy_network, loader, {"max_steps": 11, "val_check_interval": 4})
    ends = []
    for callbacks in ([], everything(weights=weights)):
        average = EMAWeightAveraging(decay=0.5)
        both = [*callbacks, average] if first else [average, *callbacks]
        module, run = trained(tmp_path / str(len(ends)), case, both, val=True)
        ends.append((module, average._average_model, torch.get_rng_state(), run.global_step))
    (plain, mean, state, steps), (tracked, tracked_mean, tracked_state, tracked_steps) = ends
    assert steps == tracked_steps == 11
    assert same(plain, tracked)
    assert same(mean, tracked_mean)
    assert not same(mean.module, tracked) or same(plain, mean.module)
    assert torch.equal(state, tracked_state)


class Fails(OwnModule):
    """Draws random numbers, changes modes, and fails, in every measurement but the first ones."""

    def denoise(self, z, sigma):
        if not torch.is_grad_enabled() and self.global_step in (2, 5, 11):
            torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
            self.body.eval()
            raise RuntimeError("out of memory")
        return super().denoise(z, sigma)


@pytest.mark.filterwarnings("ignore:SpectralTracker")
@pytest.mark.parametrize("options", [{"on_error": "skip"}, {"on_error": "skip", "max_overhead": 10.0}])
def test_weights_are_the_same_where_measurements_fail(options, tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    callbacks = everything(**options)
    check(tmp_path, (lambda: Fails(Body(dropout=0.3)), loader, {"max_steps": 11}), callbacks)
    assert [step for step, _ in callbacks[0].session.errors.failures][:2] == [2, 5]
    assert 2 not in callbacks[0].history.steps


class Disturbing(pl.Callback):
    def on_train_start(self, trainer, pl_module):
        torch.rand(1)


def test_a_single_draw_from_the_global_generator_would_be_seen(tmp_path):
    plain, _ = trained(tmp_path, CASES["plain"], [])
    disturbed, _ = trained(tmp_path, CASES["plain"], [Disturbing()])
    assert not same(plain, disturbed)
