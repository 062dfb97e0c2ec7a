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
from tests.support.tiny_training import Body, OwnModule, draw_blanks, examples, fit, loader, same, three, tracker

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
    "learning-rate schedule": (lambda: OwnModule(scheduled=True), loader, {}),
    "frozen submodule": (_frozen, loader, {}),
    "epochs": (OwnModule, loader, {"max_steps": -1, "max_epochs": 2}),
    "augmentation of a batch": (lambda: Augmented(own=False), loader, {}),
    "augmentation with a generator": (Augmented, loader, {}),
}


def generators():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def trained(path, case, callbacks, val=False):
    """The module, the number of updates, and the global generators after training from one initialisation."""
    make_module, make_loader, options = case
    torch.manual_seed(0)
    module, data = make_module(), make_loader()
    run = fit(path, callbacks, module, data, loader(examples(16, seed=9), shuffle=False) if val else None, **options)
    return module, run.global_step, generators()


def check(path, case, callbacks=None, **options):
    """Train without ``callbacks`` and with them."""
    callbacks = three() if callbacks is None else callbacks
    plain, *end = trained(path / "without", case, [], **options)
    tracked, *tracked_end = trained(path / "with", case, callbacks, **options)
    assert all(len(c.history) >= 3 for c in callbacks if isinstance(c, SpectralTracker))
    assert end == tracked_end
    assert same(plain, tracked)
    return tracked


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weights_are_the_same_to_the_bit(case, tmp_path):
    tracked = check(tmp_path, case)
    assert all(p.requires_grad for n, p in tracked.named_parameters() if not n.startswith("frozen"))
    assert not any(tracked.seen_frozen_training)  # as its owner left it, in every step
    assert tracked.body.training


def test_weights_are_the_same_with_a_validation_loop(tmp_path):
    check(tmp_path, (OwnModule, loader, {"val_check_interval": 4, "num_sanity_val_steps": 2}), val=True)


@pytest.mark.slow
def test_weights_are_the_same_with_workers(tmp_path):
    """The transform draws from the worker's own generator, seeded from the loader's."""

    def persistent():
        return loader(Transformed(lambda: torch.randn(8)), num_workers=1, persistent_workers=True)

    check(tmp_path, (OwnModule, persistent, {"max_steps": 12}))


@pytest.mark.slow
def test_weights_are_the_same_with_the_figures_drawn(tmp_path):
    check(tmp_path, CASES["plain"], three(figures=True))
    assert sorted(p.name for p in (tmp_path / "with").rglob("*.png")) == ["emergence.png", "overlay.png"]


def everything(**options):
    """Trackers in three bases that share samples, with gains and classes, and one of other latents; all observers."""
    classes = {"per_class": True, "classify": lambda x: (x[:, 0] > 0).long(), "num_classes": 2}
    first = three(track_gain=True, **classes, **options)
    others = [tracker(name=basis, basis=basis, track_gain=True, **classes, **options) for basis in ("fourier", "patch")]
    return [*first, *others, tracker(name="other", seed=1, **options)]


@pytest.mark.parametrize("case", ["plain", "accumulation", "dropout and batch norm", "generator of the loader"])
def test_weights_are_the_same_with_everything_on(case, tmp_path, monkeypatch):
    draw_blanks(monkeypatch)
    check(tmp_path, CASES[case], everything(figures=True))


@pytest.mark.parametrize("weights", ["raw", "ema"])
@pytest.mark.parametrize("first", [True, False], ids=["trackers first", "average first"])
def test_weights_and_their_average_are_the_same(first, weights, tmp_path):
    """What training leaves in the module is the average; the raw weights are in the average's own copy by then."""
    case = (_noisy_network, loader, {"max_steps": 11, "val_check_interval": 4})
    ends = []
    for callbacks in ([], everything(weights=weights)):
        average = EMAWeightAveraging(decay=0.5)
        both = [*callbacks, average] if first else [average, *callbacks]
        module, *end = trained(tmp_path / str(len(ends)), case, both, val=True)
        ends.append((end, module.state_dict(), average._average_model.state_dict()))
    (end, plain, mean), (tracked_end, tracked, tracked_mean) = ends
    assert end == tracked_end
    assert same(plain, tracked)
    assert same(mean, tracked_mean)


class Fails(OwnModule):
    """Draws random numbers, changes modes, and fails, in every measurement but the first ones."""

    def denoise(self, z, sigma):
        if not torch.is_grad_enabled() and self.global_step in (2, 5, 11):
            torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
            self.body.eval()
            raise RuntimeError("out of memory")
        return super().denoise(z, sigma)


@pytest.mark.filterwarnings("ignore:Session")
@pytest.mark.parametrize("options", [{}, {"max_overhead": 10.0}])
def test_weights_are_the_same_where_measurements_fail(options, tmp_path):
    callbacks = everything(on_error="skip", **options)
    check(tmp_path, (lambda: Fails(Body(dropout=0.3)), loader, {"max_steps": 11}), callbacks)
    assert [step for step, _ in callbacks[0].session.errors.failures][:2] == [2, 5]
    assert 2 not in callbacks[0].history.steps


class Disturbing(pl.Callback):
    def on_train_start(self, trainer, pl_module):
        torch.rand(1)


def test_a_single_draw_from_the_global_generator_would_be_seen(tmp_path):
    plain, disturbed = (trained(tmp_path, CASES["plain"], extra)[0] for extra in ([], [Disturbing()]))
    assert not same(plain, disturbed)


class Compiled(OwnModule):
    """Its network is compiled by a backend that counts the graphs it is given."""

    def __init__(self, whole):
        super().__init__(Body(dropout=0.2))
        self.graphs = []
        if whole:
            self.body = torch.compile(self.body, backend=self.count)
        else:
            self.body.compile(backend=self.count)

    def count(self, graph, example_inputs):
        self.graphs.append(graph)
        return graph.forward


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["torch.compile", "in place"])
def test_a_compiled_training_is_the_same_to_the_bit_with_no_other_graph(whole, tmp_path):
    made = []

    def compiled():
        torch._dynamo.reset()
        made.append(Compiled(whole))
        return made[-1]

    # 64 examples in batches of 12: the last one of an epoch is of another size, for which training compiles again.
    case = (compiled, lambda: loader(batch_size=12), {"max_steps": -1, "max_epochs": 2})
    check(
        tmp_path, case, [tracker(name=n, basis=n, track_gain=True, batch_size=5) for n in ("pca", "fourier", "patch")]
    )
    plain, tracked = (len(module.graphs) for module in made)
    assert plain == tracked >= 2
