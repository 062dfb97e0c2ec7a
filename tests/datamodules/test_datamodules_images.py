"""Images in the formats of the real sets: which are read, how their pixels are transformed, and which are kept."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from spectral_lightning.datamodules import ImageDataModule, SwapVariances
from spectral_lightning.datamodules.images.selection import ClassChoice
from spectral_lightning.datamodules.pixels import Framing, PixelScale
from tests.support.image_fixtures import compress, write_celeba, write_cifar10, write_folder, write_mnist


@pytest.fixture
def any_checksum(monkeypatch):
    """The fixtures cannot have the checksums of the real files; whether a file is there is still looked at."""
    for module in ("cifar", "celeba", "utils"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file()
        )


def bytes_of(images):
    """Images in [0, 1] as rows of bytes that can be looked up."""
    return {row.tobytes() for row in (images * 255).round().byte().flatten(1).numpy()}


def epoch(data, seed=0):
    torch.manual_seed(seed)
    return list(data.train_dataloader())


@pytest.mark.parametrize(("dataset", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_mnist_files(tmp_path, dataset, folder, cache):
    pixels, labels = write_mnist(tmp_path, name=folder)
    data = ImageDataModule(dataset, str(tmp_path), normalize="unit", labels=True, cache=cache, batch_size=20)
    batches = epoch(data)
    assert [tuple(images.shape) for images, _ in batches] == [(20, 1, 28, 28)] * 3
    seen = {
        row.numpy().tobytes(): int(k) for x, y in batches for row, k in zip((x * 255).round().byte(), y, strict=True)
    }
    assert seen == {row.astype(np.uint8).tobytes(): int(k) for row, k in zip(pixels, labels, strict=True)}
    assert (len(data.val_rows), data.num_classes) == (20, 10)
    assert data.class_names[9] == ("9" if dataset == "mnist" else "Ankle boot")


def test_mnist_compressed_is_unpacked_by_the_trainer_s_process_that_downloads(tmp_path, any_checksum):
    write_mnist(tmp_path)
    for path in list((tmp_path / "MNIST" / "raw").iterdir()):
        compress(path)
    with pytest.raises(ValueError, match="Pass `download=True`"):
        ImageDataModule("mnist", str(tmp_path), batch_size=4).setup()
    data = ImageDataModule("mnist", str(tmp_path), download=True, batch_size=4)
    data.prepare_data()
    assert len(data.train_rows) == 60


def test_cifar10_files(tmp_path, any_checksum):
    pixels = write_cifar10(tmp_path)
    data = ImageDataModule("cifar10", str(tmp_path), normalize="unit", batch_size=25)
    assert data.shape == (3, 32, 32)
    assert bytes_of(torch.cat(epoch(data))) == {row.tobytes() for row in pixels.reshape(100, -1)}
    assert (len(data.val_rows), data.class_names[3]) == (20, "cat")
    gray = ImageDataModule("cifar10", str(tmp_path), normalize="unit", gray=True, seed=0, batch_size=25)
    weights = np.array([0.2989, 0.587, 0.114]).reshape(3, 1, 1)
    chosen = data.train_rows.data.numpy()
    np.testing.assert_allclose(gray.train_rows.data.numpy(), (chosen * weights).sum(1, keepdims=True), atol=1e-6)
    assert gray.shape == (1, 32, 32)


def test_celeba_files(tmp_path, any_checksum):
    training, smiling = write_celeba(tmp_path)
    data = ImageDataModule("celeba", str(tmp_path), attribute="Smiling", labels=True, resize=16, batch_size=5)
    assert data.shape == (3, 16, 16)
    assert data.class_names == ("not Smiling", "Smiling")
    labels = torch.cat([y for _, y in epoch(data)])
    assert (len(labels), int(labels.sum())) == (20, int(smiling[training].sum()))
    assert len(data.val_rows) == 5  # the test part of 30, not the validation part
    plain = ImageDataModule("celeba", str(tmp_path), batch_size=5)
    assert (plain.shape, plain.num_classes) == ((3, 218, 178), 0)
    assert tuple(epoch(plain)[0].shape) == (5, 3, 218, 178)
    with pytest.raises(ValueError, match="`labels`, `classes` and `class_fraction` must"):
        ImageDataModule("celeba", str(tmp_path), labels=True).setup()
    with pytest.raises(ValueError, match="`attribute` must be one of 'Bald', 'Smiling', 'Young'"):
        ImageDataModule("celeba", str(tmp_path), attribute="Frowning").setup()


def test_folder_has_the_classes_and_files_of_imagefolder(tmp_path):
    write_folder(tmp_path, {"cat": 5, "ant/deep": 4, "bee": 3})
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    data = ImageDataModule("folder", str(tmp_path), normalize="unit", val_fraction=0, labels=True, batch_size=12)
    theirs = ImageFolder(str(tmp_path))
    assert data.class_names == tuple(theirs.classes)
    assert data.shape == (3, 12, 10)
    (images, labels) = epoch(data)[0]
    pairs = Counter((np.asarray(image).transpose(2, 0, 1).tobytes(), label) for image, label in theirs)
    ours = zip((images * 255).round().byte().numpy(), labels.tolist(), strict=True)
    assert Counter((image.tobytes(), label) for image, label in ours) == pairs


@pytest.mark.parametrize("second", ["val", "valid", "validation", "test"])
def test_folder_with_a_validation_part(tmp_path, second):
    write_folder(tmp_path / "train", {"a": 6, "b": 4})
    write_folder(tmp_path / second, {"b": 3}, seed=1)
    data = ImageDataModule("folder", str(tmp_path), labels=True, batch_size=4)
    assert (len(data.train_rows), len(data.val_rows), data.class_names) == (10, 3, ("a", "b"))
    assert next(iter(data.val_dataloader()))[1].tolist() == [1, 1, 1]
    # A number asks for a random part of the training images instead.
    drawn = ImageDataModule("folder", str(tmp_path), val_fraction=0.2, batch_size=4)
    assert (len(drawn.train_rows), len(drawn.val_rows)) == (8, 2)
    assert ImageDataModule("folder", str(tmp_path), val_fraction=0, batch_size=4).val_dataloader() == []


def test_flat_folder(tmp_path):
    write_folder(tmp_path, {"": 20}, suffix=".jpg")
    data = ImageDataModule("folder", str(tmp_path), resize=[6, 5], batch_size=4)
    assert (data.shape, data.num_classes, len(data.train_rows), len(data.val_rows)) == ((3, 6, 5), 0, 18, 2)
    with pytest.raises(ValueError, match="`labels`, `classes` and `class_fraction` must"):
        ImageDataModule("folder", str(tmp_path), labels=True).setup()


def test_folder_of_different_sizes_needs_a_size(tmp_path):
    write_folder(tmp_path / "a", {"x": 6})
    write_folder(tmp_path / "a", {"y": 6}, size=(9, 9))
    with pytest.raises(ValueError, match="`resize` must be given for images of different sizes"):
        ImageDataModule("folder", str(tmp_path), batch_size=4).setup()
    assert ImageDataModule("folder", str(tmp_path), resize=8, gray=True, batch_size=4).train_rows[0].shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("have", "want", "box"),
    [
        ((40, 40), (8, 8), (0, 0, 40, 40)),
        ((30, 50), (10, 10), (10, 0, 40, 30)),
        ((50, 30), (10, 10), (0, 10, 30, 40)),
        ((40, 60), (8, 16), (0, 5, 60, 35)),
        ((6, 4), (9, 6), (0, 0, 4, 6)),
    ],
)
def test_crop_and_antialiased_resize_are_pillow_s(have, want, box):
    image = np.random.default_rng(0).random(have, dtype=np.float32)
    expected = Image.fromarray(image).crop(box).resize(want[::-1], Image.Resampling.BILINEAR)
    found = Framing(want)(torch.from_numpy(image)[None])
    # rounding of float32 in another order of summation
    np.testing.assert_allclose(found[0].numpy(), np.asarray(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_normalisations(tmp_path, any_checksum, cache):
    write_cifar10(tmp_path)
    arguments = {"dataset": "cifar10", "root": str(tmp_path), "cache": cache, "batch_size": 100}
    raw, own, symmetric = (ImageDataModule(normalize=n, **arguments) for n in ("unit", "standardize", "symmetric"))
    everything = list(range(100))
    pixels = raw.train_rows.batch(everything).double()
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0)
    torch.testing.assert_close(own.scale.mean, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(own.scale.std, std, rtol=1e-12, atol=0)
    assert (symmetric.scale.mean.tolist(), symmetric.scale.std.tolist()) == ([0.5] * 3, [0.5] * 3)
    for module in (own, symmetric):
        for rows, theirs in ((module.train_rows, raw.train_rows), (module.val_rows, raw.val_rows)):
            some = everything[: len(rows)]
            restored = rows.batch(some) * module.scale.std.view(-1, 1, 1) + module.scale.mean.view(-1, 1, 1)
            # one rounding of float32 per pixel
            torch.testing.assert_close(restored, theirs.batch(some).double(), rtol=0, atol=1e-6)
    assert symmetric.train_rows.batch(everything).aminmax() == (-1, 1)


def test_moments_in_one_pass_keep_their_digits_and_cap_what_they_read(tmp_path, monkeypatch):
    pixels = 1 - 1e-5 * torch.rand(30, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scale = PixelScale.standard(torch.split(pixels, 7))
    torch.testing.assert_close(scale.mean, pixels.mean((0, 2, 3)), rtol=1e-14, atol=0)
    # a difference of mean squares would lose five of its digits
    torch.testing.assert_close(scale.std, pixels.std((0, 2, 3), correction=0), rtol=1e-10, atol=0)
    write_mnist(tmp_path)
    monkeypatch.setattr("spectral_lightning.datamodules.images.datamodule._MOMENTS_LIMIT", 7)
    data = ImageDataModule("mnist", str(tmp_path), cache="none", batch_size=4)
    unit = ImageDataModule("mnist", str(tmp_path), normalize="unit", batch_size=4)
    torch.testing.assert_close(data.scale.mean, unit.train_rows.batch(list(range(7))).double().mean().view(1))


@pytest.mark.parametrize("classes", [[8, 3], ["8", "3"], [8, "3"]])
def test_classes_are_kept_and_renumbered_in_their_order(classes):
    data = ImageDataModule("digits", normalize="unit", classes=classes, labels=True, batch_size=16)
    every = ImageDataModule("digits", normalize="unit", labels=True, batch_size=16)
    assert data.class_names == ("8", "3")
    for ours, whole in ((data.train_rows, every.train_rows), (data.val_rows, every.val_rows)):
        for new, old in enumerate((8, 3)):
            assert torch.equal(ours.data[ours.labels == new], whole.data[whole.labels == old])
        assert set(ours.labels.tolist()) == {0, 1}


def test_names_come_before_indices():
    names = ("2", "1", "0")  # what YAML reads as a number may be the name of a folder
    assert ClassChoice([2, "1"]).resolved(names) == ([0, 1], [1.0, 1.0])
    assert ClassChoice([3, 0]).resolved(("a", "b", "c", "d")) == ([3, 0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("fractions", "kept"),
    [
        ({"1": 0.1, 7: 0.5}, {1: 45, 7: 225}),
        ([1, 0.1, 1, 1, 1, 1, 1, 0.5, 1, 1], {1: 45, 7: 225}),
        ({0: 1e-6}, {0: 1}),
    ],
)
def test_fractions_of_classes_are_exact(tmp_path, fractions, kept):
    write_mnist(tmp_path, train=4500, test=100)
    data = ImageDataModule("mnist", str(tmp_path), class_fraction=fractions, labels=True, batch_size=16)
    expected = [kept.get(k, 450) for k in range(10)]
    assert data.train_rows.labels.bincount(minlength=10).tolist() == expected
    assert data.val_rows.labels.bincount(minlength=10).tolist() == [max(round(10 * n / 450), 1) for n in expected]


def test_max_samples_is_a_part_of_all_in_proportion():
    every, some = (ImageDataModule("digits", normalize="unit", max_samples=m, batch_size=16) for m in (None, 161))
    assert (len(some.train_rows), len(some.val_rows)) == (161, 18)
    assert bytes_of(some.train_rows.data) < bytes_of(every.train_rows.data)
    assert not bytes_of(some.train_rows.data) & bytes_of(some.val_rows.data)
    assert len(ImageDataModule("digits", max_samples=10**6, batch_size=16).train_rows) == 1617


@pytest.mark.parametrize("flip", [False, True])
def test_every_cache_gives_the_same_batches(flip):
    caches = ("none", "memory", "device")
    arguments = {"dataset": "faces", "labels": True, "flip": flip, "batch_size": 50}
    found = {cache: epoch(ImageDataModule(cache=cache, **arguments), seed=3) for cache in caches}
    for cache in ("none", "device"):
        for (x, y), (p, q) in zip(found["memory"], found[cache], strict=True):
            assert torch.equal(x, p)
            assert torch.equal(y, q)


@pytest.mark.parametrize(
    ("limit", "edit", "cached"),
    [(4 * 64 * 1797, None, "memory"), (4 * 64 * 1797 - 1, None, "none"), (0, SwapVariances([[0, 1]]), "memory")],
    ids=["fits", "does not fit", "edited"],
)
def test_auto_holds_what_fits_and_what_is_edited(monkeypatch, limit, edit, cached):
    monkeypatch.setattr("spectral_lightning.datamodules.images.datamodule._AUTO_LIMIT", limit)
    data = ImageDataModule("digits", batch_size=16, edit=edit)
    data.setup()
    assert data.cached == cached
    assert isinstance(data.train_rows.data, torch.Tensor) == (cached == "memory")


@pytest.mark.parametrize(
    "arguments",
    [
        {"dataset": "imagenet"},
        *({"root": root, "dataset": dataset} for root, dataset in ((None, "mnist"), ("", "folder"), ("x", "digits"))),
        {"download": True},
        {"attribute": "Smiling"},
        *({"resize": size} for size in (0, [8, 8, 8], 4.5)),
        {"normalize": "whiten"},
        {"classes": []},
        *({"class_fraction": fractions} for fractions in ({"1": 1.5}, [0.0], [float("nan")])),
        {"max_samples": 0},
        {"cache": "disk"},
        {"num_workers": 2, "cache": "device"},
        {"cache": "none", "edit": SwapVariances([[0, 1]])},
        {"flip": True, "edit": SwapVariances([[0, 1]])},
        *({"val_fraction": share} for share in (1.0, -0.1)),
    ],
)
def test_bad_argument(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        ImageDataModule(**{"dataset": "digits", **arguments})
