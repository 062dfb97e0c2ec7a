"""The data a spectrum is computed from: which examples are read, in what form, and what stays untouched."""

import random
import types

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning as other_pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, Subset, TensorDataset

from spectral_lightning.spectra import Ranks
from spectral_lightning.spectra.reading import examples as examples_of
from spectral_lightning.spectra.reading import preserved_generators, reference_batches
from spectral_lightning.tracking.reference.source import find_data
from tests.support.tiny_training import OwnModule, examples, loader, own_module, tracker, trainer

ROWS = torch.arange(20.0)[:, None].repeat(1, 3)


class Share:
    """One of several ranks."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


class Counting(Dataset):
    def __init__(self):
        self.read = []

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.read.append(index)
        return ROWS[index], index


class Batches(Dataset):
    """Every item is a batch: for a loader without automatic batching."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return ROWS[4 * index : 4 * index + 4]


def read(source, limit=1000, ranks=None, **options):
    return torch.cat(list(reference_batches(source, ranks or Ranks(), limit, **options)))


SOURCES = {
    "tensor": lambda: ROWS,
    "dataset": lambda: TensorDataset(ROWS),
    "subset": lambda: Subset(TensorDataset(torch.cat([ROWS, ROWS])), range(20)),
    "loader": lambda: DataLoader(TensorDataset(ROWS), batch_size=3, shuffle=True, drop_last=True),
    "loader over a tensor": lambda: DataLoader(ROWS, batch_size=3, shuffle=True),
    "loader over a list": lambda: DataLoader(list(ROWS), batch_size=7),
    "loader with labels": lambda: DataLoader(Counting(), batch_size=4),
    "loader that repeats": lambda: DataLoader(ROWS, sampler=[0, 0, 0, 1], batch_size=2),
    "loader with a batch sampler": lambda: DataLoader(
        ROWS, batch_sampler=BatchSampler(SequentialSampler(ROWS), 6, drop_last=True)
    ),
    "loader without batching": lambda: DataLoader(Batches(), batch_size=None),
    "loader with a collate function": lambda: DataLoader(ROWS, collate_fn=lambda rows: {"x": torch.stack(rows)}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_example_counts_once(name):
    source = find_data(SOURCES[name](), None)
    key = "x" if "collate" in name else None
    assert read(source, batch_key=key)[:, 0].sort().values.tolist() == list(range(20))


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (5, 5), (20, 20), (21, 20)])
def test_at_most_so_many_evenly_spread(limit, expected):
    found = read(ROWS, limit)[:, 0]
    assert len(found) == expected
    if limit > 1:
        assert found[[0, -1]].tolist() == [0, 19]
        gaps = found.diff()
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("size", [2, 3, 7])
def test_ranks_share_the_examples_without_overlap(size):
    parts = [read(ROWS, ranks=Share(rank, size))[:, 0].tolist() for rank in range(size)]
    assert sorted(index for part in parts for index in part) == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_limit_reads_no_more_than_it_says():
    dataset = Counting()
    read(DataLoader(dataset, batch_size=4), limit=6)
    assert len(dataset.read) == len(set(dataset.read)) == 6


@pytest.mark.parametrize(
    ("batch", "key"),
    [
        (ROWS, None),
        ((ROWS, 1), None),
        ([ROWS, 1], 0),
        ((1, ROWS), 1),
        ((1, ROWS), -1),
        ({"a": 1, "b": ROWS}, "b"),
        ({3: ROWS}, 3),
    ],
)
def test_the_examples_of_a_batch(batch, key):
    assert examples_of(batch, key) is ROWS


@pytest.mark.parametrize(
    ("batch", "key", "error", "message"),
    [
        ({"a": ROWS}, None, ValueError, r"`batch_key` must name the examples in the batch, one of \['a'\], got None"),
        ({"a": ROWS}, "b", ValueError, r"one of \['a'\], got 'b'"),
        ((ROWS,), 1, ValueError, "`batch_key` must be a position in a batch of 1 elements, got 1"),
        ((ROWS,), "x", ValueError, "`batch_key` must be a position in a batch of 1 elements, got 'x'"),
        ((), None, ValueError, "a batch of 0 elements"),
        (("text", ROWS), None, TypeError, "must hold a tensor of examples, got str. Name it with `batch_key`"),
        (ROWS.to(torch.uint8), None, TypeError, "floating-point numbers .* got torch.uint8"),
        (ROWS.bool(), None, TypeError, "got torch.bool"),
    ],
)
def test_batches_that_hold_no_examples(batch, key, error, message):
    with pytest.raises(error, match=message):
        examples_of(batch, key)


def test_a_transform_acts_before_the_moments(tmp_path):
    data = examples()
    pixels = ((data - data.min()) / (data.max() - data.min()) * 255).round().to(torch.uint8)
    scaled, plain = tracker(transform=lambda x: 2 * x), tracker(name="plain")
    trainer(tmp_path, [scaled, plain], max_steps=1).fit(OwnModule(), loader(data))
    np.testing.assert_allclose(scaled.history.target, 4 * plain.history.target, rtol=1e-6)
    with pytest.raises(TypeError, match=r"got torch\.uint8"):
        read(pixels)


def test_the_moments_are_those_of_the_data(tmp_path):
    data = examples()
    own = tracker()
    # A loader that drops and repeats: the spectrum is that of the dataset.
    odd = loader(TensorDataset(data), sampler=[0, 0, 1, 2, 3, 3, 3, 3], shuffle=None)
    trainer(tmp_path, [own], max_steps=1).fit(OwnModule(), odd)
    covariance = np.cov(data.double().numpy().T, bias=True)
    np.testing.assert_allclose(own.history.target, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-9)
    np.testing.assert_allclose(own.basis.mean, data.double().mean(0), rtol=1e-9, atol=1e-12)


def test_other_data_may_be_given(tmp_path):
    other = examples(seed=5)
    found = []
    for data in (other, TensorDataset(other), loader(other), loader(TensorDataset(other))):
        own = tracker(data=data)
        trainer(tmp_path, [own], max_steps=1).fit(OwnModule(), loader())
        found.append(own.history.target)
    covariance = np.cov(other.double().numpy().T, bias=True)
    for target in found:
        np.testing.assert_allclose(target, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-9)


def test_generators_that_no_dataset_holds_are_not_touched():
    outside = np.random.default_rng(0)
    before = outside.bit_generator.state
    with preserved_generators(TensorDataset(ROWS)):
        outside.normal()
    assert outside.bit_generator.state != before


def test_generators_deep_in_a_dataset_are_put_back_after_an_error():
    class Holder(Dataset):
        def __init__(self):
            self.parts = {"transforms": [1, (np.random.default_rng(0), torch.Generator().manual_seed(2))]}

    data = Holder()
    numpy_generator, torch_generator = data.parts["transforms"][1]
    states = numpy_generator.bit_generator.state, torch_generator.get_state()

    def use_both_and_fail():
        with preserved_generators(DataLoader(Subset(data, [0]))):
            numpy_generator.normal()
            torch.rand(1, generator=torch_generator)
            raise KeyError("no such file")

    with pytest.raises(KeyError, match="no such file"):
        use_both_and_fail()
    assert numpy_generator.bit_generator.state == states[0]
    assert torch.equal(torch_generator.get_state(), states[1])


def test_what_has_no_state_or_belongs_to_everybody_is_passed_over():
    """The operating system's generator keeps no state; an imported module's is the program's, not the dataset's."""
    code = types.ModuleType("code")
    code.generator = np.random.default_rng(0)
    data = TensorDataset(ROWS)
    holder = Subset(data, [0])
    holder.parts = [random.SystemRandom(), code, type("Class", (), {"generator": code.generator})]
    before = code.generator.bit_generator.state
    with preserved_generators(holder):
        code.generator.normal()
    assert code.generator.bit_generator.state != before


# As the network sees them.


def variances(data):
    """Eigenvalues of the covariance, the largest first."""
    return np.linalg.eigvalsh(np.cov(data.double().numpy().T, bias=True))[::-1]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen, self.awake = nn.Dropout(0.5), nn.Dropout(0.5)
        self.frozen.eval()
        self.calls = []

    def encode(self, x):
        self.calls.append((self.training, torch.is_grad_enabled()))
        return self.awake(self.frozen(3 * x))


class Latent(OwnModule):
    """Trains on what its own encoder, with dropout inside, makes of the data."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()

    def encode(self, x):
        return self.encoder.encode(x)

    def training_step(self, batch, batch_idx):
        self.modes = (self.encoder.training, self.encoder.frozen.training, self.encoder.awake.training)
        return super().training_step(self.encode(batch), batch_idx)


@pytest.mark.parametrize("transform", ["encode", "encoder.encode", "callable"])
def test_the_encoder_of_latent_diffusion_runs_undisturbed_and_is_put_back(tmp_path, transform):
    module = Latent()
    module.encoder.frozen.eval()
    own = tracker(transform=module.encode if transform == "callable" else transform)
    run = trainer(tmp_path, [own], max_steps=1)
    module.train()
    module.encoder.frozen.eval()
    run.fit(module, loader())
    # No dropout: three times the data.
    np.testing.assert_allclose(own.history.target, variances(3 * examples()), rtol=1e-5)
    *reading, training = module.encoder.calls
    assert set(reading) == {(False, False)}
    assert training == (True, True)
    assert module.modes == (True, False, True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encode", "`transform` must be an attribute path on OwnModule, got 'encode': .* Its submodules: body."),
        ("body.layers.encode", "`transform` must be an attribute path on OwnModule, got 'body.layers.encode'"),
        ("scheduled", "`transform` must name a method of OwnModule, got 'scheduled'"),
        ("", "`transform` must name a method of OwnModule, got ''"),
    ],
)
def test_a_transform_that_names_nothing(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [tracker(transform=name)]).fit(OwnModule(), loader())


def normalising(base, hook):
    """Doubles the data on their way to the device, as a normalisation or an augmentation there."""

    def transfer(self, batch, *_device_and_index):
        return 2 * batch

    return type("Normalising", (base,), {hook: transfer})


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return loader()


HOOKS = ["on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("package", [pl, other_pl], ids=["lightning", "pytorch_lightning"])
@pytest.mark.parametrize("owner", ["module", "datamodule"])
def test_what_happens_on_the_way_to_the_network_is_in_the_spectrum(tmp_path, hook, package, owner):
    module, data = own_module(package.LightningModule), type("Plain", (package.LightningDataModule,), {})
    data.train_dataloader = Data.train_dataloader
    module, data = (normalising(module, hook), data) if owner == "module" else (module, normalising(data, hook))
    own, given = tracker(), tracker(name="given", data=examples())
    trainer(tmp_path, [own, given], package, max_steps=1).fit(module(), datamodule=data())
    np.testing.assert_allclose(own.history.target, variances(2 * examples()), rtol=1e-5)
    # What is given is as the network sees it already.
    np.testing.assert_allclose(given.history.target, variances(examples()), rtol=1e-5)


def test_the_hook_of_the_datamodule_stands_in_for_that_of_the_module(tmp_path):
    """As in Lightning, which uses one of the two."""
    hook = "on_after_batch_transfer"
    module = normalising(OwnModule, hook)
    own, data = tracker(), type("Tripling", (Data,), {hook: lambda self, batch, dataloader_idx: 3 * batch})
    trainer(tmp_path, [own], max_steps=1).fit(module(), datamodule=data())
    np.testing.assert_allclose(own.history.target, variances(3 * examples()), rtol=1e-5)


def test_every_hook_acts_once(tmp_path):
    module = OwnModule
    for hook in HOOKS:
        module = normalising(module, hook)
    own = tracker()
    trainer(tmp_path, [own], max_steps=1).fit(module(), loader())
    np.testing.assert_allclose(own.history.target, variances(8 * examples()), rtol=1e-5)


def test_batches_that_are_dicts(tmp_path):
    class OfDicts(OwnModule):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["image"], batch_idx)

    data = [{"label": torch.tensor(i), "image": x} for i, x in enumerate(examples())]
    own = tracker(batch_key="image")
    trainer(tmp_path, [own], max_steps=1).fit(OfDicts(), loader(data))
    np.testing.assert_allclose(own.history.target, variances(examples()), rtol=1e-5)


@pytest.mark.parametrize("limit", [7, 19, 1000])
def test_the_limit_is_that_of_all_ranks_together(limit):
    datasets = [Counting() for _ in range(3)]
    for rank, data in enumerate(datasets):
        read(loader(data), limit, Share(rank, 3))
    every = sorted(index for data in datasets for index in data.read)
    assert len(every) == len(set(every)) == min(limit, 20)
    assert max(len(d.read) for d in datasets) - min(len(d.read) for d in datasets) <= 1


class CountedRows(Dataset):
    """Says how often each row was read."""

    def __init__(self):
        self.rows, self.reads = examples(), 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.reads += 1
        return self.rows[index]


@pytest.mark.parametrize("damage", ["none", "gone", "broken"])
def test_a_resumed_run_reads_its_basis_and_not_its_data(tmp_path, damage):
    def fit(steps, data, **options):
        own = tracker(data=data)
        kept = ModelCheckpoint(tmp_path / "checkpoints", save_last=True, every_n_train_steps=5)
        run = trainer(tmp_path, [own, kept], max_steps=steps, enable_checkpointing=True)
        run.fit(OwnModule(), loader(), **options)
        return own

    first, again = CountedRows(), CountedRows()
    before = fit(5, first)
    assert first.reads == 64
    basis = tmp_path / "spectral" / "basis.pt"
    if damage == "gone":
        basis.unlink()
    elif damage == "broken":
        basis.write_bytes(basis.read_bytes()[:100])
    if damage == "broken":
        with pytest.warns(UserWarning, match=r"basis\.pt cannot be read"):
            after = fit(10, again, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    else:
        after = fit(10, again, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert again.reads == (0 if damage == "none" else 64)
    assert torch.equal(after.basis.variance, before.basis.variance)
    assert after.history.steps.tolist() == [0, 1, 2, 5, 10]
