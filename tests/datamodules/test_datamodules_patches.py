"""Patches of photographs. Synthetic photographs whose pixels hold their own coordinates prove where a patch comes from."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from spectral_lightning.datamodules import PatchDataModule
from spectral_lightning.datamodules.patches import COLOR_PHOTOGRAPHS, PHOTOGRAPHS, PatchRegions, shipped_photographs
from spectral_lightning.datamodules.pixels import read_image


def coordinates(height, width, number):
    """A colour picture whose pixel (row, column) has the value (row, column, number)."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.uint8))


@pytest.fixture
def coded_folder(tmp_path):
    sizes = [(120, 96), (64, 200), (90, 90)]
    (tmp_path / "deeper").mkdir()
    for k, (size, name) in enumerate(zip(sizes, ["a.png", "b.bmp", "deeper/c.PNG"], strict=True)):
        coordinates(*size, k).save(tmp_path / name)
    return str(tmp_path)


@pytest.fixture
def noise_folder(tmp_path):
    rng = np.random.default_rng(0)
    for k, shape in enumerate([(70, 80, 3), (64, 64, 3)]):
        smooth = rng.normal(size=shape).cumsum(0).cumsum(1)
        scaled = 255 * (smooth - smooth.min()) / np.ptp(smooth)
        Image.fromarray(scaled.astype(np.uint8)).save(tmp_path / f"{k}.jpg", quality=95)
    return str(tmp_path)


def decoded(batches):
    """Photograph, row and column of each patch, after checking that it is the window it says it starts at."""
    patches = torch.cat(list(batches)).mul(255).round().long()
    rows, columns, numbers = patches[:, 0], patches[:, 1], patches[:, 2]
    size = torch.arange(patches.shape[-1])
    assert torch.equal(rows, rows[:, :1, :1] + size.view(-1, 1).expand(rows.shape[1:]))
    assert torch.equal(columns, columns[:, :1, :1] + size.expand(columns.shape[1:]))
    assert torch.equal(numbers, numbers[:, :1, :1].expand_as(numbers))
    return torch.stack([numbers[:, 0, 0], rows[:, 0, 0], columns[:, 0, 0]], dim=1)


@pytest.mark.parametrize("guard", [0, 1, 5, None])
@pytest.mark.parametrize(("size", "stride", "cell"), [(8, 4, None), (8, 3, 20), (7, 2, 11)])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_pixel_is_shared_and_the_guard_is_kept(coded_folder, guard, size, stride, cell, seed):
    where = {"size": size, "stride": stride, "cell": cell, "guard": guard, "seed": seed}
    data = PatchDataModule(coded_folder, **where, color=True, standardize=False, batch_size=2)
    train, val = decoded([data.train_rows.data]), decoded(data.val_dataloader())
    assert set(train[:, 0].tolist()) == set(val[:, 0].tolist()) == {0, 1, 2}  # both kinds from every photograph
    assert len(train.unique(dim=0)) == len(train)
    assert len(val.unique(dim=0)) == len(val)
    assert (train[:, 1:] % stride == 0).all()
    apart = (train[:, None, 1:] - val[None, :, 1:]).abs().amax(-1)  # of the corners, in the further direction
    apart = apart[train[:, None, 0] == val[None, :, 0]]
    assert apart.min() >= size + (size // 2 if guard is None else guard)


@pytest.mark.parametrize(("guard", "train"), [(0, 12), (1, 7), (4, 7)])
def test_counts_by_hand(guard, train):
    # 4 x 4 windows in 2 x 2 cells, one of which validates: 4 windows; up to 4 pixels of guard drop the 5 next to it.
    regions = PatchRegions(size=4, stride=4, cell=8, guard=guard, val_fraction=0.25)
    found = regions.split(16, 16, np.random.default_rng(0))
    assert [len(corners) for corners in found] == [train, 4]


@pytest.mark.parametrize("fraction", [0.05, 0.25, 0.5])
def test_fraction_of_the_cells_validates(fraction):
    regions = PatchRegions(size=4, stride=4, cell=4, guard=0, val_fraction=fraction)
    train, val = regions.split(80, 80, np.random.default_rng(0))  # 400 cells of one window each
    assert (len(train), len(val)) == (400 - 400 * fraction, 400 * fraction)


def test_no_validation_takes_every_window(coded_folder):
    data = PatchDataModule(coded_folder, size=8, val_fraction=0, color=True, standardize=False, batch_size=1)
    expected = sum(len(range(0, h - 7, 4)) * len(range(0, w - 7, 4)) for h, w in [(120, 96), (64, 200), (90, 90)])
    assert len(decoded(data.train_dataloader())) == expected
    assert data.val_dataloader() == []


@pytest.mark.parametrize("color", [False, True])
def test_standardised_with_the_moments_of_the_training_pixels(noise_folder, color):
    data = PatchDataModule(noise_folder, size=8, batch_size=16, color=color)
    raw = PatchDataModule(noise_folder, size=8, batch_size=16, color=color, standardize=False)
    train, pixels = data.train_rows.data.double(), raw.train_rows.data.double()
    # one rounding of float32 per pixel
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(len(data.scale.mean)).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(train.std((0, 2, 3), correction=0), torch.ones_like(data.scale.std), rtol=1e-6, atol=0)
    for ours, theirs in [(data.train_rows, raw.train_rows), (data.val_rows, raw.val_rows)]:
        restored = ours.data * data.scale.std.view(-1, 1, 1) + data.scale.mean.view(-1, 1, 1)
        torch.testing.assert_close(restored, theirs.data.double(), rtol=0, atol=1e-6)
    assert 0 <= pixels.min() < pixels.max() <= 1
    assert (raw.scale.mean.tolist(), raw.scale.std.tolist()) == ([0.0] * data.shape[0], [1.0] * data.shape[0])


def test_max_patches_is_a_part_of_all_in_proportion(coded_folder):
    arguments = {"folder": coded_folder, "size": 8, "color": True, "standardize": False, "batch_size": 10}
    every, some = PatchDataModule(**arguments), PatchDataModule(**arguments, max_patches=100)
    for kind in ("train_rows", "val_rows"):
        whole, part = (set(map(tuple, decoded([getattr(d, kind).data]).tolist())) for d in (every, some))
        assert part < whole
        share = 100 / len(every.train_rows)
        assert len(part) == max(round(share * len(whole)), 1)
    assert len(PatchDataModule(**arguments, max_patches=10**6).train_rows) == len(every.train_rows)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_grey_is_the_luminance(tmp_path, suffix):
    color = np.zeros((16, 16, 3), np.uint8) + np.array([200, 100, 50], np.uint8)
    path = tmp_path / f"one{suffix}"
    Image.fromarray(color).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    # one of 255 levels for rounding to 8 bits, three for the compression of JPEG
    tolerance = (3 if suffix == ".jpg" else 1) / 255
    grey = (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255
    np.testing.assert_allclose(read_image(path), np.full((1, 16, 16), grey), atol=tolerance)
    np.testing.assert_allclose(read_image(path, color=True)[:, 3, 5], np.array([200, 100, 50]) / 255, atol=tolerance)


@pytest.mark.parametrize("color", [False, True])
def test_sixteen_bits_palettes_and_transparency(tmp_path, color):
    deep = np.full((4, 5), 65_535 // 3, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.full((4, 5), 85, np.uint8)).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.full((4, 5, 4), 85, np.uint8)).save(tmp_path / "transparent.png")
    for name in ("deep", "palette", "transparent"):
        pixels = read_image(tmp_path / f"{name}.png", color=color)
        np.testing.assert_allclose(pixels, np.full((3 if color else 1, 4, 5), 1 / 3), rtol=1e-6, err_msg=name)


def test_shipped_photographs_are_there_and_those_in_colour_are_in_colour():
    assert [path.stem for path in shipped_photographs()] == list(PHOTOGRAPHS)
    spread = {path.stem: np.ptp(read_image(path, color=True).numpy(), axis=0).max() for path in shipped_photographs()}
    assert {name for name, value in spread.items() if value > 0} == set(COLOR_PHOTOGRAPHS)
    assert [path.stem for path in shipped_photographs(color=True)] == list(COLOR_PHOTOGRAPHS)


def test_default_patches_are_natural_images():
    data = PatchDataModule(max_patches=20_000)
    assert len(data.train_rows) == 20_000
    covariances = [np.cov(rows.data.flatten(1).double().numpy().T) for rows in (data.train_rows, data.val_rows)]
    variance, modes = np.linalg.eigh(covariances[0])
    assert variance[-1] > 0.5 * 256  # brightness carries most of the variance of natural patches
    assert 1e-3 < variance[0] < 2e-2  # and the finest mode is four decades below it
    held_out = np.einsum("dk,de,ek->k", modes, covariances[1], modes)
    # about 400 independent places validate, and photographs are not stationary
    assert 0.5 < (held_out / variance).min() < (held_out / variance).max() < 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"photographs": ["camera"], "folder": "x"},
        {"size": 0},
        {"stride": 0},
        {"cell": 8},
        {"guard": -1},
        *({"val_fraction": share} for share in (1.0, -0.1, float("nan"))),
        {"max_patches": 0},
    ],
)
def test_bad_argument(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        PatchDataModule(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"photographs": names} for names in (["camera", "lena"], [], ["camera", "camera"])),
        {"size": 304, "photographs": ["coins"]},
        *({"cell": cell, "guard": guard, "photographs": ["coins"]} for cell, guard in ((300, None), (None, 400))),
        {"folder": "nowhere"},
    ],
)
def test_photographs_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`.* must"):
        PatchDataModule(**arguments).setup()


BAD = {
    "notes.txt": (b"no picture", "`folder` must hold images"),
    "wide.png": (coordinates(10, 40, 0), "`size` must be at most the sides of the photograph, .*'wide.png'"),
    "small.png": (coordinates(40, 40, 0), "`cell` and `guard` must leave windows .*'small.png'"),
    "broken.png": (b"not an image", "Every image must be readable, got .*broken.png"),
    "cut.jpg": (Image.effect_noise((200, 200), 50), "Every image must be readable, got .*cut.jpg"),
    "float.tif": (Image.fromarray(np.zeros((200, 200), np.float32)), "Every image must be readable, got .*float.tif"),
    "flat.png": (Image.new("L", (200, 200), 7), "Images must vary in every channel"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folder(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else content.save(path)
    if name == "cut.jpg":
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=message):
        PatchDataModule(str(tmp_path)).setup()


def test_missing_scikit_image_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"pip install 'spectral-lightning\[data\]'"):
        PatchDataModule().setup()
