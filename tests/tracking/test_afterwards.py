"""Histories from samples and checkpoints that others saved, against NumPy and against a monitor that was there."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from spectral_lightning import Sampler, Sampling, SpectralMonitor
from spectral_lightning.cli.main import main
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.tracking import Output, Schedule, track_checkpoints, track_samples

DIM, SAMPLER = 6, Sampler(num_steps=4)
SCALES = np.geomspace(2.0, 0.1, DIM)


def rows(count, seed, scale=1.0):
    mixing = np.linalg.qr(np.random.default_rng(99).normal(size=(DIM, DIM)))[0]
    return scale * np.random.default_rng(seed).normal(size=(count, DIM)) * SCALES @ mixing.T + 0.3


@pytest.fixture
def saved(tmp_path):
    """Samples of three steps in three formats, the last in two files."""
    folder = tmp_path / "samples"
    folder.mkdir()
    tables = {step: rows(40 + step, step + 1, 0.5 + 0.01 * step) for step in (0, 7, 20)}
    np.save(folder / "it3-step0.npy", tables[0])
    torch.save(torch.from_numpy(tables[7]), folder / "out_0007.pt")
    for part in (0, 1):
        np.savez(folder / f"step20-rank{part}.npz", samples=tables[20][part::2], labels=np.zeros(3))
    (folder / "notes.txt").write_text("not samples")
    np.save(tmp_path / "data.npy", rows(500, 0))
    return folder, tmp_path / "data.npy", tables


def test_variances_and_errors_are_numpys(saved, tmp_path):
    folder, data, tables = saved
    history = track_samples(folder, data, output=Output(str(tmp_path)))
    values, vectors = np.linalg.eigh(np.cov(np.load(data).T, bias=True))
    np.testing.assert_allclose(history.target, values[::-1], rtol=1e-6)
    assert history.steps.tolist() == [0, 7, 20]
    assert history["num_samples"].tolist() == [40, 47, 60]
    for row, table in zip(range(3), tables.values(), strict=True):
        along = (table - np.load(data).mean(0)) @ vectors[:, ::-1]
        np.testing.assert_allclose(history.variance[row], along.var(0, ddof=1), rtol=1e-6)
        centred = along - along.mean(0)
        error = np.sqrt(((centred**4).mean(0) - (centred**2).mean(0) ** 2) / len(table))
        np.testing.assert_allclose(history["standard_error"][row], error, rtol=1e-5)
    kept = SpectralHistory.load(tmp_path / "spectral" / "history.npz")
    np.testing.assert_array_equal(kept.variance, history.variance)


def test_images_in_a_folder_per_step_are_bytes_from_minus_one_to_one(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 4, 5, 3), np.uint8)
    for step, images in zip((0, 100), pixels, strict=True):
        (tmp_path / "samples" / f"{step}").mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "samples" / f"{step}" / f"{number}.png")
    np.save(tmp_path / "data.npy", pixels.reshape(-1, 4, 5, 3))
    found = [
        track_samples(
            tmp_path / "samples", tmp_path / place, basis="fourier", output=Output(str(tmp_path)), name=place[:4]
        )
        for place in ("data.npy", "samples")
    ]
    np.testing.assert_allclose(found[0].target, found[1].target, rtol=1e-6)
    # The whole variance is that of the pixels, scaled.
    whole = (found[0].variance[1] * found[0]["multiplicity"]).sum()
    assert whole == pytest.approx(pixels[1].reshape(12, -1).var(0, ddof=1).sum() / 127.5**2, rel=1e-6)


class Mine(nn.Module):
    """A linear denoiser, one gain per coordinate."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Linear(DIM, DIM, bias=False)

    def denoise(self, z, sigma):
        return self.gain(z) / (1 + sigma[:, None] ** 2)


def make():
    torch.manual_seed(3)
    return Mine()


@pytest.mark.parametrize("kind", ["lightning", "plain"])
def test_checkpoints_give_the_history_of_a_monitor_that_was_there(saved, tmp_path, kind):
    data = torch.from_numpy(np.load(saved[1])).float()
    network, folder, sampling = make(), tmp_path / "checkpoints", Sampling(2 * DIM, SAMPLER, track_floor=False)
    folder.mkdir()
    there, place = Schedule(per_decade=3), Output(str(tmp_path / "there"), figures=False)
    with SpectralMonitor(network, data, sampling=sampling, schedule=there, output=place, observers=[]) as monitor:
        for step in range(6):
            if step in monitor.history.steps:
                if kind == "lightning":
                    state = {f"network.{name}": value for name, value in network.state_dict().items()}
                    document, name = (
                        {"state_dict": {**state, "other": torch.ones(1)}, "global_step": step},
                        f"v{9 - step}.ckpt",
                    )
                else:
                    document, name = {"ema": network.state_dict()}, f"epoch=9-step={step}-v1.pt"
                torch.save(document, folder / name)
            with torch.no_grad():
                network.gain.weight += 0.1 * torch.eye(DIM)
            monitor.step()
    key = "ema" if kind == "plain" else None
    found = track_checkpoints(
        folder, data, make, key=key, sampling=sampling, output=Output(str(tmp_path), figures=False)
    )
    own = np.isin(monitor.history.steps, found.steps)
    assert found.steps.tolist() == [0, 1, 2, 5]
    for name in ("variance", "mean_deviation"):
        np.testing.assert_allclose(found[name], monitor.history[name][own], rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "spectral" / "emergence.json").read_text())["criterion"] == "geometric"


def test_the_command_makes_what_summary_reads(saved, tmp_path, capsys):
    options = ["--output", str(tmp_path / "out"), "--basis", "pca"]
    main(["track", str(saved[0]), str(saved[1]), *options])
    main(["summary", str(tmp_path / "out")])
    assert "6 modes, 3 measurements" in capsys.readouterr().out
    torch.save(make().state_dict(), saved[0].parent / "5.pt")
    here = f"{__name__}:make"
    main(
        [
            "track",
            str(saved[0].parent),
            str(saved[1]),
            "--factory",
            here,
            "--num_samples",
            "12",
            *options,
            "--name",
            "net",
        ]
    )
    assert SpectralHistory.load(tmp_path / "out" / "net" / "history.npz").steps.tolist() == [5]


@pytest.mark.parametrize(
    ("name", "content", "options", "error"),
    [
        ("first.npy", rows(9, 1), {}, "'.*first.npy' has no step in its name"),
        ("step1.npy", rows(9, 1)[:, :4], {}, r"step1.npy' holds samples of shape \(4,\), the data have \(6,\)"),
        ("step1.npy", rows(1, 1), {}, "step1.npy' must hold at least two finite samples, got 1, 1 of them"),
        ("step1.npy", rows(9, 1) * np.nan, {}, "got 9, 0 of them finite"),
        ("step1.npy", rows(9, 1).astype(int), {}, "step1.npy' must hold bytes or floating-point numbers, got int64"),
        ("step1.npy", np.ones(3), {}, r"must hold examples \[N, ...\], got an array of shape \(3,\)"),
        ("step1.npy", np.array([{}], object), {}, "step1.npy' cannot be read: Object arrays"),
        ("step1.npy", rows(9, 1), {"pattern": "step"}, "`pattern` must have one group of digits"),
        ("step1.npy", rows(9, 1), {"pattern": r"it(\d+)"}, "step1.npy' has no step"),
        ("notes.txt", rows(9, 1), {}, "must hold one subfolder or file .* per step, got none"),
    ],
    ids=["step", "shape", "few", "nan", "integers", "axes", "objects", "group", "pattern", "none"],
)
def test_what_is_wrong_with_samples_is_said_with_the_path(tmp_path, name, content, options, error):
    (tmp_path / "samples").mkdir()
    with (tmp_path / "samples" / name).open("wb") as file:
        np.save(file, content, allow_pickle=True)
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        track_samples(tmp_path / "samples", torch.from_numpy(rows(50, 0)), output=Output(str(tmp_path)), **options)


def test_samples_with_nan_are_left_out(saved, tmp_path):
    table = rows(30, 5)
    table[3, 2] = np.nan
    np.save(saved[0] / "step30.npy", table)
    with pytest.warns(UserWarning, match="1 of 30 samples in .*step30.npy' held NaN"):
        history = track_samples(saved[0], saved[1], output=Output(str(tmp_path)))
    assert history["non_finite"].tolist() == [0, 0, 0, 1]
    assert np.isfinite(history.variance).all()


@pytest.mark.parametrize(
    ("documents", "options", "error"),
    [
        ({}, {}, "must hold checkpoints"),
        (
            {"7.pt": {"global_step": 3, "state_dict": {}}, "8.pt": {"global_step": 3}},
            {},
            "7.pt' and .*8.pt' are both of step 3",
        ),
        (
            {"7.pt": {"optimizer": {}}},
            {},
            r"7.pt' must hold the weights of Mine, such as gain.weight; it holds \['optimizer'\]",
        ),
        ({"7.pt": {"ema": {}}}, {"key": "average"}, "`key` must name an entry of .*7.pt', got 'average'"),
        ({"7.pt": {"a.gain.weight": 0, "b.gain.weight": 1}}, {}, r"prefixes \['a.', 'b.'\] fit: pass `prefix`"),
        ({"7.pt": {"gain.weight": torch.ones(2, 2)}}, {}, "7.pt' does not fit Mine: .*size mismatch"),
        ({"7.pt": {"module": make()}}, {}, "7.pt' holds more than tensors .* trusted=True"),
        ({"7.pt": {}}, {"factory": "no.such:thing"}, "`factory` must be the import path"),
    ],
    ids=["none", "twice", "key", "no entry", "prefix", "fit", "objects", "factory"],
)
def test_what_is_wrong_with_checkpoints_is_said_with_the_path(tmp_path, documents, options, error):
    for name, document in documents.items():
        torch.save(document, tmp_path / name)
    arguments = {"factory": make, "output": Output(str(tmp_path)), **options}
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){error}"):
        track_checkpoints(tmp_path, torch.from_numpy(rows(50, 0)), **arguments)
