"""Images in the formats of the real sets: which are read, what becomes of their pixels, and how they are handed out."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader, DistributedSampler, Subset
from torchvision.datasets import ImageFolder

from spectral_lightning.datamodules import ImageDataModule, SwapVariances
from spectral_lightning.datamodules.images.subsets import ClassChoice
from spectral_lightning.datamodules.images.transforms import Framing, channel_moments
from spectral_lightning.spectra.ranks import Ranks
from spectral_lightning.spectra.reading import reference_batches
from spectral_lightning.tracking.reference.source import find_data
from tests.support.image_fixtures import compress, write_celeba, write_cifar10, write_folder, write_mnist


@pytest.fixture
def any_checksum(monkeypatch):
    """The fixtures cannot have the checksums of the real files; whether a file is there is still looked at."""
    for module in ("cifar", "celeba", "utils"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: _exists(path))


def _exists(path):
    try:
        open(path, "rb").close()
    except OSError:
        return False
    return True


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
    weights = np.array([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    chosen = data.train_rows.images.numpy()
    np.testing.assert_allclose(gray.train_rows.images.numpy(), (chosen * weights).sum(1, keepdims=True), atol=1e-6)
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
    with pytest.raises(ValueError, match="Choose an `attribute`, such as 'Smiling'"):
        ImageDataModule("celeba", str(tmp_path), labels=True).setup()
    with pytest.raises(ValueError, match="`attribute` must be one of 'Bald', 'Smiling', 'Young', got 'Frowning'"):
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
    with pytest.raises(ValueError, match=r"must be left out for images without classes.*folder of their own"):
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
    torch.testing.assert_close(own.mean_pixel, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(own.std_pixel, std, rtol=1e-12, atol=0)
    assert (symmetric.mean_pixel.tolist(), symmetric.std_pixel.tolist()) == ([0.5] * 3, [0.5] * 3)
    for module in (own, symmetric):
        for rows, theirs in ((module.train_rows, raw.train_rows), (module.val_rows, raw.val_rows)):
            some = everything[: len(rows)]
            restored = rows.batch(some) * module.std_pixel.view(-1, 1, 1) + module.mean_pixel.view(-1, 1, 1)
            # one rounding of float32 per pixel
            torch.testing.assert_close(restored, theirs.batch(some).double(), rtol=0, atol=1e-6)
    assert symmetric.train_rows.batch(everything).aminmax() == (-1, 1)


def test_moments_in_one_pass_keep_their_digits_and_cap_what_they_read(tmp_path, monkeypatch):
    pixels = 1 - 1e-5 * torch.rand(30, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, std = channel_moments(torch.split(pixels, 7))
    torch.testing.assert_close(mean, pixels.mean((0, 2, 3)), rtol=1e-14, atol=0)
    # a difference of mean squares would lose five of its digits
    torch.testing.assert_close(std, pixels.std((0, 2, 3), correction=0), rtol=1e-10, atol=0)
    write_mnist(tmp_path)
    monkeypatch.setattr("spectral_lightning.datamodules.images.images._MOMENTS_LIMIT", 7)
    data = ImageDataModule("mnist", str(tmp_path), cache="none", batch_size=4)
    unit = ImageDataModule("mnist", str(tmp_path), normalize="unit", batch_size=4)
    torch.testing.assert_close(data.mean_pixel, unit.train_rows.batch(list(range(7))).double().mean().view(1))


@pytest.mark.parametrize("classes", [[8, 3], ["8", "3"], [8, "3"]])
def test_classes_are_kept_and_renumbered_in_their_order(classes):
    data = ImageDataModule("digits", normalize="unit", classes=classes, labels=True, batch_size=16)
    every = ImageDataModule("digits", normalize="unit", labels=True, batch_size=16)
    assert data.class_names == ("8", "3")
    for ours, whole in ((data.train_rows, every.train_rows), (data.val_rows, every.val_rows)):
        for new, old in enumerate((8, 3)):
            assert torch.equal(ours.images[ours.labels == new], whole.images[whole.labels == old])
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


def test_fractions_follow_the_classes_kept():
    data = ImageDataModule(
        "mnist5k", classes=[4, 9, 1], class_fraction=[1, 0.2, 0.02], val_fraction=0, labels=True, batch_size=16
    )
    assert data.train_rows.labels.bincount().tolist() == [500, 100, 10]
    named = ImageDataModule(
        "mnist5k", classes=[4, 9, 1], class_fraction={"9": 0.2, "1": 0.02}, val_fraction=0, labels=True, batch_size=16
    )
    assert torch.equal(named.train_rows.images, data.train_rows.images)


def test_max_samples_is_a_part_of_all_in_proportion():
    every, some = (ImageDataModule("digits", normalize="unit", max_samples=m, batch_size=16) for m in (None, 161))
    assert (len(some.train_rows), len(some.val_rows)) == (161, 18)
    assert bytes_of(some.train_rows.images) < bytes_of(every.train_rows.images)
    assert len(ImageDataModule("digits", max_samples=10**6, batch_size=16).train_rows) == 1617


def test_parts_are_disjoint_and_by_seed():
    a, same, other = (ImageDataModule("faces", normalize="unit", seed=s, batch_size=16) for s in (0, 0, 1))
    assert torch.equal(a.train_rows.images, same.train_rows.images)
    assert not torch.equal(a.val_rows.images, other.val_rows.images)
    assert len(bytes_of(torch.cat([a.train_rows.images, a.val_rows.images]))) == 400


@pytest.mark.parametrize("flip", [False, True])
def test_every_cache_gives_the_same_batches(flip):
    caches = ("none", "memory", "device")
    arguments = {"dataset": "faces", "labels": True, "flip": flip, "batch_size": 50}
    found = {cache: epoch(ImageDataModule(cache=cache, **arguments), seed=3) for cache in caches}
    for cache in ("none", "device"):
        for (x, y), (p, q) in zip(found["memory"], found[cache], strict=True):
            assert torch.equal(x, p)
            assert torch.equal(y, q)


def test_two_epochs_differ_in_order_only_and_a_seed_repeats_them():
    data = ImageDataModule("digits", val_fraction=0, batch_size=599)  # 3 x 599 = 1797
    torch.manual_seed(0)
    first, second = (torch.cat(list(data.train_dataloader())) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten(1).sum(1).sort().values, second.flatten(1).sum(1).sort().values)
    assert torch.equal(torch.cat(epoch(data)), first)


def test_the_global_state_is_untouched_until_batches_are_read():
    before = torch.get_rng_state(), random.getstate()
    data = ImageDataModule("faces", flip=True, cache="none", max_samples=100, classes=list(range(20)), batch_size=16)
    data.setup()
    data.train_dataloader()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_flips_are_fair_and_for_training_only():
    data = ImageDataModule("mnist5k", flip=True, batch_size=16)
    torch.manual_seed(0)
    indices = list(range(2000))
    stored, seen = data.train_rows.images[indices], data.train_rows.batch(indices)
    straight, mirrored = ((seen == x).flatten(1).all(1) for x in (stored, stored.flip(-1)))
    assert (straight | mirrored).all()
    assert 0.45 < mirrored.float().mean() < 0.55  # 4.5 standard deviations of 2,000 coins
    assert torch.equal(data.val_rows.batch([0, 1]), data.val_rows.images[:2])


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_callbacks_read_what_the_network_sees(labels, flip):
    data = ImageDataModule("digits", labels=labels, flip=flip, batch_size=16)
    loader = data.train_dataloader()
    torch.manual_seed(0)
    found = torch.cat(list(reference_batches(find_data(loader, None), Ranks(), 10_000)))
    stored = data.train_rows.images
    assert found.shape == stored.shape
    assert torch.equal(found, stored) != flip
    assert torch.equal(found.sum(-1), stored.sum(-1)) or flip  # mirrored rows have other roundings
    torch.testing.assert_close(found.sum(-1), stored.sum(-1), rtol=0, atol=1e-5)
    # The dataset alone, with the collate function of PyTorch, and one example at a time.
    direct = torch.cat(list(reference_batches(find_data(None, data.val_rows), Ranks(), 100, None)))
    assert len(direct) == 100
    batch = next(iter(DataLoader(Subset(loader.dataset, [3, 5]), 2, collate_fn=loader.collate_fn)))
    item = data.val_rows[-1]
    assert tuple((item[0] if labels else item).shape) == data.shape
    assert tuple((batch[0] if labels else batch).shape) == (2, *data.shape)
    with pytest.raises(IndexError):
        data.val_rows[len(data.val_rows)]


class _Shares(LightningModule):
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


QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


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
        model = _Shares()
        Trainer(max_epochs=1, **QUIET).fit(model, datamodule=data)
        assert model.kinds == {(DistributedSampler, (20, 1, 32, 32))}
        shares.append(model.labels)
    assert [len(share) for share in shares] == [200, 200]
    assert Counter(shares[0] + shares[1]) == dict.fromkeys(range(40), 10)  # every face once, on one of the ranks


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_what_the_main_process_gives(tmp_path, workers):
    write_folder(tmp_path, {"a": 20, "b": 20})
    data = ImageDataModule("folder", str(tmp_path), labels=True, cache="none", num_workers=workers, batch_size=9)
    alone = ImageDataModule("folder", str(tmp_path), labels=True, cache="memory", batch_size=9)
    for (x, y), (p, q) in zip(epoch(data), epoch(alone), strict=True):
        assert torch.equal(x, p)
        assert torch.equal(y, q)


@pytest.mark.parametrize("cache", ["auto", "memory", "device"])
def test_edit_swaps_two_modes_of_both_parts(cache):
    plain = ImageDataModule("digits", batch_size=16)
    swapped = ImageDataModule("digits", edit=SwapVariances([[0, 5]]), cache=cache, batch_size=16)
    rows = [module.train_rows.images.flatten(1).double() for module in (plain, swapped)]
    covariances = [torch.cov(part.T, correction=0) for part in rows]
    variance, modes = torch.linalg.eigh(covariances[0])
    found = torch.einsum("dk,de,ek->k", modes, covariances[1], modes).flip(0)
    expected = variance.flip(0).clone()
    expected[[0, 5]] = expected[[5, 0]]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # pixels are float32
    torch.testing.assert_close(rows[0].mean(0), rows[1].mean(0), rtol=0, atol=1e-6)
    # The same map for validation, not one fitted to it.
    first, sixth = modes.flip(1)[:, 0], modes.flip(1)[:, 5]
    before, after = (m.val_rows.images.flatten(1).double() - rows[0].mean(0) for m in (plain, swapped))
    ratio = (variance[-6] / variance[-1]).sqrt()
    torch.testing.assert_close(after @ first, (before @ first) * ratio, rtol=0, atol=1e-5)
    torch.testing.assert_close(after @ sixth, (before @ sixth) / ratio, rtol=0, atol=1e-5)
    assert swapped.cached == ("memory" if cache == "auto" else cache)


@pytest.mark.parametrize(("limit", "cached"), [(4 * 64 * 1797, "memory"), (4 * 64 * 1797 - 1, "none")])
def test_auto_holds_what_fits(monkeypatch, limit, cached):
    monkeypatch.setattr("spectral_lightning.datamodules.images.images._AUTO_LIMIT", limit)
    data = ImageDataModule("digits", batch_size=16)
    data.setup()
    assert data.cached == cached
    assert isinstance(data.train_rows.images, torch.Tensor) == (cached == "memory")


YAML = """
data:
  class_path: spectral_lightning.datamodules.ImageDataModule
  init_args:
    dataset: digits
    resize: [6, 6]
    normalize: symmetric
    classes: [1, "7", 3]
    class_fraction: {7: 0.5, "1": 0.25}
    labels: true
    cache: memory
    edit:
      class_path: spectral_lightning.datamodules.SwapVariances
      init_args: {pairs: [[0, 3]]}
    batch_size: 16
"""


def parsed(text):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = parser.parse_string(text)
    # What is written down again is read as the same.
    again = parser.parse_string(parser.dump(config))
    return parser.instantiate_classes(again).data


def test_from_yaml_under_a_trainer():
    data = parsed(YAML)
    assert type(data) is ImageDataModule
    model = _Shares()
    Trainer(max_epochs=1, **QUIET).fit(model, datamodule=data)
    assert {shape for _, shape in model.kinds} == {(16, 1, 6, 6)}
    assert set(model.labels) == {0, 1, 2}
    assert data.class_names == ("1", "7", "3")


@pytest.mark.parametrize("text", [YAML.replace("digits", "digit"), YAML.replace("symmetric", "both")])
def test_wrong_yaml_is_refused(text):
    with pytest.raises(Exception, match=r"digit|both"):
        parsed(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "imagenet"}, "`dataset` must be one of 'mnist', .* 'faces', got 'imagenet'"),
        ({"dataset": "mnist"}, "`root` must be the folder of 'mnist', got None"),
        ({"dataset": "folder", "root": ""}, "`root` must be the folder of 'folder', got ''"),
        ({"root": "x"}, "`root` must be left out for 'digits', which a package ships, got 'x'"),
        ({"download": True}, "`download` must be False for 'digits'"),
        ({"attribute": "Smiling"}, "`attribute` must be left out for 'digits', got 'Smiling'"),
        ({"resize": 0}, "`resize` must be a positive integer, got 0"),
        ({"resize": [8, 8, 8]}, "`resize` must be a side, or height and width, in pixels"),
        ({"resize": 4.5}, "`resize` must be a positive integer, got 4.5"),
        ({"normalize": "whiten"}, "`normalize` must be one of 'standardize', 'symmetric', 'unit', got 'whiten'"),
        ({"classes": []}, "`classes` must name at least one class"),
        ({"class_fraction": {"1": 1.5}}, "`class_fraction` must hold numbers above 0 and at most 1, got 1.5"),
        ({"class_fraction": [0.0]}, "`class_fraction` must hold numbers above 0 .* got 0.0. Leave classes out"),
        ({"class_fraction": [float("nan")]}, "`class_fraction` must hold numbers above 0 .* got nan"),
        ({"max_samples": 0}, "`max_samples` must be a positive integer, got 0"),
        ({"cache": "disk"}, "`cache` must be one of 'auto', 'none', 'memory', 'device', got 'disk'"),
        ({"cache": "device", "num_workers": 2}, "`num_workers` must be 0 with `cache` 'device', got 2"),
        ({"cache": "none", "edit": SwapVariances([[0, 1]])}, "`cache` must be 'auto', .* with `edit`, got 'none'"),
        ({"flip": True, "edit": SwapVariances([[0, 1]])}, "`flip` must be False with `edit`, got True"),
        ({"val_fraction": 1.0}, "`val_fraction` must be a number of at least 0 and below 1, got 1.0"),
        ({"val_fraction": -0.1}, "`val_fraction` must be a number of at least 0 and below 1, got -0.1"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer, got 0"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"num_workers": -1}, "`num_workers` must be an integer of at least 0"),
    ],
)
def test_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**{"dataset": "digits", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [3, 10]}, "`classes` must be names or indices of the set's classes, .* got 10"),
        ({"classes": ["three"]}, "`classes` must be names or indices of the set's classes, .* got 'three'"),
        ({"classes": [3, "3"]}, r"`classes` must be different classes, got \[3, '3'\]"),
        ({"class_fraction": {"x": 0.5}}, "`class_fraction` must be names or indices of the set's classes"),
        ({"class_fraction": [0.5]}, "`class_fraction` must hold one number per class kept, 10, got 1"),
        ({"classes": [3], "class_fraction": {4: 0.5}}, "`class_fraction` must be of classes that are kept"),
        ({"batch_size": 1618}, "`batch_size` must be at most the number of training images, 1617, got 1618"),
    ],
)
def test_bad_choice_of_images(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule("digits", **arguments).setup()


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10", "celeba"])
def test_missing_files_name_the_remedy(tmp_path, dataset):
    with pytest.raises(ValueError, match=f"`root` must hold the files of '{dataset}' .*Pass `download=True`, or copy"):
        ImageDataModule(dataset, str(tmp_path)).setup()


def _nothing(root):
    (root / "notes.txt").write_text("no picture")


def _foreign_class(root):
    write_folder(root / "train", {"a": 3})
    write_folder(root / "val", {"b": 3})


def _flat_validation(root):
    write_folder(root / "train", {"a": 3})
    write_folder(root / "val", {"": 3})


def _broken(root):
    write_folder(root, {"": 3})
    (root / "broken.png").write_bytes(b"not an image")


def _one_brightness(root):
    for k in range(3):
        Image.new("RGB", (4, 4), (7, 8, 9)).save(root / f"{k}.png")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (_nothing, r"`root` must hold images \(.png, .* with none"),
        (_foreign_class, r"`root` must have the same classes for validation as for training, \['a'\], got \['b'\]"),
        (_flat_validation, r"`root` must have classes for validation .* got a flat folder"),
        (_broken, "readable images only, got .*broken.png"),
        (_one_brightness, "`normalize` must be 'symmetric' or 'unit' for images with a channel of one brightness"),
    ],
)
def test_bad_folder(tmp_path, fill, message):
    fill(tmp_path)
    with pytest.raises(ValueError, match=message):
        ImageDataModule("folder", str(tmp_path), val_fraction=None, batch_size=1).setup()


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match=r"`root` must be an existing folder, got .*nowhere"):
        ImageDataModule("folder", str(tmp_path / "nowhere")).setup()
