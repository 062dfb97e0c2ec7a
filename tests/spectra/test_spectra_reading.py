"""Reading the data of a spectrum: which examples are read, in what form, and what stays untouched."""

import random
import types

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, Subset, TensorDataset

from spectral_lightning.spectra import Ranks
from spectral_lightning.spectra.reading import examples as examples_of
from spectral_lightning.spectra.reading import preserved_generators, reference_batches

ROWS = torch.arange(20.0)[:, None].repeat(1, 3)


class Share(Ranks):
    """One of several ranks."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


class Counting(Dataset):
    """Writes down what is read."""

    def __init__(self, rows=ROWS):
        self.rows, self.read = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.read.append(index)
        return self.rows[index], index


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
    source = SOURCES[name]()
    key = "x" if "collate" in name else None
    assert read(source, batch_key=key)[:, 0].sort().values.tolist() == list(range(20))


@pytest.mark.parametrize(("limit", "expected"), [(2, 2), (5, 5), (20, 20), (21, 20)])
def test_at_most_so_many_evenly_spread(limit, expected):
    found = read(ROWS, limit)[:, 0]
    assert len(found) == expected
    assert found[[0, -1]].tolist() == [0, 19]
    assert found.diff().max() - found.diff().min() <= 1


@pytest.mark.parametrize("limit", [7, 19, 1000])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_ranks_share_the_examples_without_overlap(size, limit):
    datasets = [Counting() for _ in range(size)]
    for rank, data in enumerate(datasets):
        read(DataLoader(data, batch_size=4), limit, Share(rank, size))
    every = [index for data in datasets for index in data.read]
    assert len(every) == len(set(every)) == min(limit, 20)  # nothing is read that does not count
    counts = [len(data.read) for data in datasets]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("batch", "key"),
    [(ROWS, None), ((ROWS, 1), None), ([ROWS, 1], 0), ((1, ROWS), -1), ({"a": 1, "b": ROWS}, "b"), ({3: ROWS}, 3)],
)
def test_the_examples_of_a_batch(batch, key):
    assert examples_of(batch, key) is ROWS


@pytest.mark.parametrize(
    ("batch", "key", "error"),
    [
        ({"a": ROWS}, None, ValueError),
        ({"a": ROWS}, "b", ValueError),
        ((ROWS,), 1, ValueError),
        ((ROWS,), "x", ValueError),
        ((), None, ValueError),
        (("text", ROWS), None, TypeError),
    ],
)
def test_batches_that_hold_no_examples(batch, key, error):
    with pytest.raises(error, match="`batch_key`"):
        examples_of(batch, key)


def test_generators_deep_in_a_dataset_are_put_back_after_an_error():
    data = Subset(TensorDataset(ROWS), [0])
    held = np.random.default_rng(0), torch.Generator().manual_seed(2)
    data.parts = {"transforms": [1, held]}
    states = held[0].bit_generator.state, held[1].get_state()

    def use_both_and_fail():
        with preserved_generators(DataLoader(Subset(data, [0]))):
            held[0].normal()
            torch.rand(1, generator=held[1])
            raise KeyError("no such file")

    with pytest.raises(KeyError, match="no such file"):
        use_both_and_fail()
    assert held[0].bit_generator.state == states[0]
    assert torch.equal(held[1].get_state(), states[1])


def test_generators_that_are_not_the_datasets_are_left_alone():
    """The operating system's keeps no state; an imported module's or a class's is the program's."""
    code = types.ModuleType("code")
    code.generator = np.random.default_rng(0)
    holder = Subset(TensorDataset(ROWS), [0])
    holder.parts = [random.SystemRandom(), code, type("Class", (), {"generator": code.generator})]
    before = code.generator.bit_generator.state
    with preserved_generators(holder):
        code.generator.normal()
    assert code.generator.bit_generator.state != before
