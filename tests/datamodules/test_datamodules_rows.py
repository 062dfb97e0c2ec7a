"""What every datamodule promises: batches, seeds, workers, loaders that others can rebuild, moments, and YAML."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, DistributedSampler, Subset

from spectral_lightning.datamodules import (
    GaussianDataModule,
    GaussianFieldDataModule,
    ImageDataModule,
    MixtureDataModule,
    PatchDataModule,
    Recolor,
)
from spectral_lightning.datamodules.rows import Rows
from spectral_lightning.spectra import HasPopulationMoments, HasTrainingMoments
from spectral_lightning.spectra.ranks import Ranks
from spectral_lightning.spectra.reading import reference_batches
from tests.support.nonlinear_training import QUIET

SETS = {
    "gaussian": (GaussianDataModule, {"dim": 6, "mean": 1.5, "num_samples": 36, "num_val_samples": 20}),
    "field": (GaussianFieldDataModule, {"size": [4, 3], "channels": 2, "num_samples": 36, "num_val_samples": 20}),
    "mixture": (MixtureDataModule, {"shape": [1, 2, 2], "weights": [3, 1], "num_samples": 36, "num_val_samples": 20}),
    "unlabelled": (MixtureDataModule, {"shape": 4, "weights": [3, 1], "labels": False, "num_samples": 36}),
    "patches": (PatchDataModule, {"photographs": ["camera"], "size": 4, "max_patches": 100}),
    "edited": (PatchDataModule, {"photographs": ["coins"], "size": 4, "edit": Recolor(2.0), "max_patches": 100}),
    "held": (ImageDataModule, {"dataset": "digits", "cache": "memory", "labels": True, "max_samples": 100}),
    "mirrored": (ImageDataModule, {"dataset": "digits", "flip": True, "max_samples": 100}),
    "read": (ImageDataModule, {"dataset": "digits", "cache": "none", "resize": 6, "max_samples": 100}),
}
every_set = pytest.mark.parametrize("name", SETS)


def made(name, **options):
    kind, arguments = SETS[name]
    return kind(**{**arguments, "batch_size": 8, **options})


def images_of(batch):
    return batch if isinstance(batch, torch.Tensor) else batch[0]


def epoch(data, seed=0):
    torch.manual_seed(seed)
    return list(data.train_dataloader())


def same(first, second):
    """Whether two batches, labelled or not, are equal."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_set
def test_batches(name):
    data = made(name)
    assert data.dim == np.prod(data.shape)
    train, val = epoch(data), list(data.val_dataloader())
    assert {tuple(images_of(batch).shape) for batch in train} == {(8, *data.shape)}
    assert {images_of(batch).dtype for batch in train + val} == {torch.float32}
    assert len(train) == len(data.train_rows) // 8
    assert sum(len(images_of(batch)) for batch in val) == len(data.val_rows)
    labelled = [batch for batch in train + val if not isinstance(batch, torch.Tensor)]
    assert len(labelled) == (len(train + val) if name in ("mixture", "held") else 0)
    assert all((y.dtype, y.shape) == (torch.int64, (len(x),)) for x, y in labelled)


@every_set
def test_seeds_govern_the_data_and_the_run_their_order(name):
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    data = made(name, seed=1)
    data.setup()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # noqa: NPY002
    everything = list(range(len(data.val_rows)))
    assert same(made(name, seed=1).val_rows.batch(everything), data.val_rows.batch(everything))
    assert not same(made(name, seed=2).val_rows.batch(everything), data.val_rows.batch(everything))
    again = pickle.loads(pickle.dumps(data))
    assert same(epoch(again)[0], epoch(data)[0])
    assert not same(epoch(data, seed=3)[0], epoch(data)[0])


@every_set
def test_training_moments_are_those_of_one_epoch(name):
    data = made(name)
    assert isinstance(data, HasTrainingMoments)
    assert isinstance(data, HasPopulationMoments) == hasattr(data, "population_moments")
    plain = made(name, flip=False) if name == "mirrored" else data
    x = torch.cat([images_of(plain.train_rows[i])[None] for i in range(len(data.train_rows))]).double()
    x = torch.cat([x, x.flip(-1)]).flatten(1).numpy() if name == "mirrored" else x.flatten(1).numpy()
    mean, covariance = data.training_moments()
    # Sums of squares in float64 about zero: a mean of order 1 costs no digit that matters.
    np.testing.assert_allclose(mean, x.mean(0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(x.T, bias=True), rtol=0, atol=1e-9)


@every_set
def test_others_can_rebuild_the_loader(name):
    data = made(name)
    loader, rows = data.train_dataloader(), data.train_rows
    found = torch.cat(list(reference_batches(loader, Ranks(), 10_000)))
    if not rows.flip:
        assert torch.equal(found, torch.cat(list(rows.parts())))
    batch = next(iter(DataLoader(Subset(loader.dataset, [3, 5]), 2, collate_fn=loader.collate_fn)))
    plain = next(iter(DataLoader(rows, 2)))  # with PyTorch's own collate function
    assert images_of(batch).shape == images_of(plain).shape == (2, *data.shape)
    assert tuple(images_of(rows[-1]).shape) == data.shape
    with pytest.raises(IndexError):
        rows[len(rows)]


@pytest.mark.parametrize("name", ["gaussian", "held", "read"])
def test_workers_give_what_the_main_process_gives(name):
    for one, other in zip(epoch(made(name)), epoch(made(name, num_workers=2)), strict=True):
        assert same(one, other)


def test_flips_are_fair():
    images = torch.rand(2000, 1, 2, 3)
    torch.manual_seed(0)
    seen = Rows(images, flip=True).batch(list(range(2000)))
    straight, mirrored = ((seen == x).flatten(1).all(1) for x in (images, images.flip(-1)))
    assert (straight | mirrored).all()
    assert 0.45 < mirrored.float().mean() < 0.55  # 4.5 standard deviations of 2,000 coins


class Shares(LightningModule):
    """Keeps what a rank is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.labels, self.kinds = [], set()

    def training_step(self, batch, _):
        images, labels = batch
        self.labels += labels.tolist()
        self.kinds.add((type(self.trainer.train_dataloader.sampler), tuple(images.shape)))
        return self.weight * images.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("cache", ["memory", "device", pytest.param("none", marks=pytest.mark.slow)])
def test_a_trainer_puts_its_distributed_sampler_in(monkeypatch, cache):
    data = ImageDataModule("faces", labels=True, cache=cache, val_fraction=0, batch_size=20)
    trainer = Trainer(max_epochs=1, **QUIET)
    connector = trainer._accelerator_connector
    monkeypatch.setattr(type(connector), "is_distributed", property(lambda self: True))
    shares = []
    for rank in (0, 1):
        kwargs = {"num_replicas": 2, "rank": rank, "seed": 0}
        monkeypatch.setattr(Trainer, "distributed_sampler_kwargs", property(lambda self, kwargs=kwargs: kwargs))
        model = Shares()
        Trainer(max_epochs=1, limit_val_batches=0, **QUIET).fit(model, datamodule=data)
        assert model.kinds == {(DistributedSampler, (20, 1, 32, 32))}
        shares.append(model.labels)
    assert [len(share) for share in shares] == [200, 200]
    assert Counter(shares[0] + shares[1]) == dict.fromkeys(range(40), 10)  # every face once, on one of the ranks


NO_VALIDATION = {"gaussian": {"num_val_samples": 0}, "patches": {"val_fraction": 0}, "read": {"val_fraction": 0}}


@pytest.mark.parametrize("name", NO_VALIDATION)
def test_no_validation_means_no_loader(name):
    data = made(name, **NO_VALIDATION[name])
    data.setup()
    assert data.val_dataloader() == []


YAML = {
    "gaussian": {"spectrum": "given", "variance": [3, 1, 0.5, 1, 1, 2], "mean": [0, 1, 2, 0, 0, 0]},
    "field": {"channel_covariance": [[1, 0.5], [0.5, 1]], "exponent": 1, "mean": [0, 1]},
    "mixture": {"spectra": [{"exponent": 0}, {"spectrum": "given", "variance": [4, 3, 2, 1]}], "rotation": "none"},
    "patches": {"photographs": ["camera", "coins"], "guard": None},
    "read": {
        "classes": [1, "7", 3],
        "class_fraction": {7: 0.5, "1": 0.25},
        "cache": "memory",
        "edit": {"class_path": "spectral_lightning.datamodules.SwapVariances", "init_args": {"pairs": [[0, 3]]}},
    },
}


@pytest.mark.parametrize("name", YAML)
def test_from_yaml(name):
    kind, arguments = SETS[name]
    arguments = {**arguments, "batch_size": 8, **YAML[name]}
    text = yaml.safe_dump(
        {"data": {"class_path": f"spectral_lightning.datamodules.{kind.__name__}", "init_args": arguments}}
    )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    again = parser.parse_string(parser.dump(parser.parse_string(text)))  # what is written down is read as the same
    data = parser.instantiate_classes(again).data
    assert type(data) is kind
    assert tuple(images_of(epoch(data)[0]).shape) == (8, *data.shape)
    with pytest.raises(Exception, match="batch_size"):
        parser.parse_string(text.replace("batch_size: 8", "batch_size: many"))


@every_set
@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"batch_size": 10**6}, {"seed": -1}, {"num_workers": -1}], ids=str
)
def test_bad_arguments(name, arguments):
    (argument,) = arguments
    with pytest.raises(ValueError, match=f"`{argument}` must be"):
        made(name, **arguments).setup()
