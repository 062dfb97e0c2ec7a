"""The loss over its linear floor in a training: what it is measured on, what it leaves alone, what it survives."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, TensorDataset

from spectral_lightning import SpectralMonitor
from spectral_lightning.datamodules import MixtureDataModule
from spectral_lightning.models import DiffusionModule, ResidualMLP
from spectral_lightning.report import RunFiles
from spectral_lightning.report.summary import summary_lines
from spectral_lightning.spectra import LinearFloor, WienerFilter
from tests.support import bare_loop
from tests.support.tiny_training import (
    DIM,
    Body,
    OwnModule,
    Repeatable,
    draw_blanks,
    examples,
    fit,
    loader,
    repeatable,
    same,
    tracker,
    trainer,
    whole_batch,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HELD_OUT = examples(20, seed=9)


def validation():
    return loader(HELD_OUT, shuffle=False)


def run(path, callbacks, module, val=None, **options):
    fit(path, callbacks, module, val=val, **options)
    return callbacks[0].history if callbacks else None


def diffusion():
    torch.manual_seed(2)
    return DiffusionModule(ResidualMLP([DIM], 8, 1, 4), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))


def test_rows_are_those_of_the_validation_set_and_the_training_is_the_same_to_the_bit(tmp_path, monkeypatch):
    drawn = []
    draw_blanks(monkeypatch, lambda *parts, **_: drawn.append(parts) or Figure((1, 1)))
    plain, module, found = diffusion(), diffusion(), tracker(figures=True)
    run(tmp_path / "plain", [], plain, validation())
    history = run(tmp_path / "with", [found], module, validation(), logger=CSVLogger(tmp_path))
    assert same(plain, module)
    assert history.metadata["held_out"] == "4 points of the validation set"  # a quarter of the latents
    points = HELD_OUT[torch.linspace(0, 19, 4).round().long()]
    floor = LinearFloor(found.basis, history["levels"], points)
    with torch.no_grad():
        row = floor.fields(*floor.measure(module.eval().denoise))
    for name, value in (*row.items(), *floor.static().items()):
        np.testing.assert_allclose(history[name] if name in history.static else history[name][-1], value, rtol=1e-5)
    assert found.session.evaluations == 16 * found.session.probe.sampler.evaluations + 4 * len(history["levels"])
    # Every step has one batch of 8 examples; the rows are at steps 0, 1, 2, 5 and 10.
    assert history["training_count"].sum(1).tolist() == (8 * np.diff(history.steps, prepend=0)).tolist()
    assert np.isnan(history["over_class_floor"]).all() if "over_class_floor" in history else True
    text = next((tmp_path / "lightning_logs").rglob("metrics.csv")).read_text().splitlines()[0]
    assert f"spectral/floor/held_out/sigma_{history['levels'][1]:.3g}" in text
    assert drawn[-1] == (history,)
    lines = summary_lines(RunFiles(next(tmp_path.rglob("history.npz")).parent))
    assert any(
        line.startswith("Loss below its linear floor on 4 points of the validation set, step 10") for line in lines
    )


def of_body():
    torch.manual_seed(4)
    return OwnModule(rate=0.1)


def test_a_network_in_a_named_convention_is_listened_to(tmp_path):
    """The passes of a user's own loss, added up by hand; to the bit the training without us."""
    seen = []

    class Records(OwnModule):
        def training_step(self, batch, batch_idx):
            sigma = torch.rand(len(batch)) + 0.1
            noisy = batch + sigma[:, None] * torch.randn_like(batch)
            out = self.body(noisy, sigma)
            seen.append([part.detach() for part in (batch, noisy, sigma, out)])
            return (out - batch).square().mean()

    def make():
        torch.manual_seed(4)
        return Records(rate=0.1)

    plain, module, found = make(), make(), tracker(denoiser="edm:body")
    run(tmp_path / "plain", [], plain)
    seen.clear()
    history = run(tmp_path / "with", [found], module)
    assert same(plain, module)
    assert "over_floor" not in history
    assert history.metadata["held_out"].startswith("none: no validation set")
    # The first batch is the one that says that batches are known.
    assert history["training_count"].sum(1).tolist() == [0, 0, *(8 * np.diff(history.steps)[1:])]
    last = [torch.cat(part) for part in zip(*seen[history.steps[-2] :], strict=True)]
    wiener = WienerFilter(found.basis)(last[1], last[2])
    where = (4 * (last[2].log10() + 3)).floor().long()
    for name, out in (("training_error", last[3]), ("training_linear_error", wiener)):
        error = (out - last[0]).square().sum(1)
        mean = [error[where == k].mean().item() if (where == k).any() else np.nan for k in range(22)]
        np.testing.assert_allclose(history[name][-1], mean, rtol=1e-3)


class Shuffles(OwnModule):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch.flip(0), batch_idx)


@pytest.mark.parametrize(
    ("make", "data", "reason"),
    [
        (Shuffles, None, "not the examples of the batch"),
        (OwnModule, lambda: loader([{"x": x} for x in examples()]), "`batch_key` must name"),
    ],
)
def test_passes_of_other_data_are_left_alone(tmp_path, monkeypatch, make, data, reason):
    said = []
    monkeypatch.setattr("spectral_lightning.callbacks.training.rank_zero_info", said.append)
    if data is None:
        history = run(tmp_path, [tracker(denoiser="edm:body")], make())
    else:

        class Named(make):
            def training_step(self, batch, batch_idx):
                return super().training_step(batch["x"], batch_idx)

        options = {"denoiser": "edm:body", "data": examples()}
        history = run(tmp_path, [tracker(**options)], Named(), data=data())
    assert sum(reason in text for text in said) == 1
    assert not history["training_count"].any()


class Twice(Repeatable):
    """Publishes, as our modules do."""

    def training_step(self, batch, batch_idx):
        from spectral_lightning.diffusion import publish

        generator = torch.Generator().manual_seed(self.trainer.global_step)
        sigma = torch.rand(len(batch), generator=generator) + 0.1
        noisy = batch + sigma[:, None] * torch.randn(batch.shape, generator=generator)
        out = self.denoise(noisy, sigma)
        publish(self, batch, noisy, sigma, out)
        return (out - batch).square().mean()


def test_resumed_equals_uninterrupted(tmp_path):
    """Cut between two scheduled steps: the means since the last one go on."""

    def train(root, steps, ckpt_path=None):
        found = tracker(held_out=HELD_OUT)
        saver = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=8, save_top_k=-1)
        ends = trainer(tmp_path / root, [found, saver], max_steps=steps, enable_checkpointing=True)
        ends.fit(repeatable(Twice), whole_batch(), ckpt_path=ckpt_path)
        return found.history

    whole, _ = train("whole", 12), train("cut", 8)
    state = torch.load(tmp_path / "saved" / "step=8.ckpt", weights_only=True)["callbacks"]["SpectralTracker[spectral]"]
    assert state["floor"]["passes"] == 8
    again = train("again", 12, tmp_path / "saved" / "step=8.ckpt")
    assert again.steps.tolist() == whole.steps.tolist() == [0, 1, 2, 5, 10, 12]
    assert whole["training_count"].sum(1).tolist() == [0, 64, 64, 192, 320, 128]
    for name in set(whole.names) - {"seconds"}:
        np.testing.assert_array_equal(again[name], whole[name], err_msg=name)


def test_a_resumed_run_that_no_longer_finds_its_points(tmp_path):
    network, optimizer = bare_loop.begin()
    with bare_loop.monitor(network, tmp_path, optimizer, held_out=bare_loop.examples(10)) as found:
        bare_loop.train(network, optimizer, 3)
    other = bare_loop.monitor(network, tmp_path, optimizer)
    other.load_state_dict(found.state_dict())
    bare_loop.train(network, optimizer, 3)
    other.close()
    known = np.isfinite(other.history["over_floor"]).all(1)
    assert known.tolist() == [step <= 3 for step in other.history.steps]
    np.testing.assert_array_equal(other.history["linear_error"], found.history["linear_error"])


@pytest.mark.parametrize("hooks", [True, False])
def test_a_loop_that_names_its_batches(tmp_path, hooks):
    network, optimizer = bare_loop.begin()
    found = bare_loop.monitor(network, tmp_path, optimizer if hooks else None, held_out=HELD_OUT)
    data = bare_loop.examples()
    for _ in range(10):
        x, sigma = data[:16], torch.rand(16) + 0.1
        loss = (network(x + sigma[:, None] * torch.randn_like(x), sigma) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.step(x)
    found.close()
    history = found.history
    # The first batch says that batches are known; with hooks, a measurement comes before the batch is named.
    assert history["training_count"].sum() == 16 * (9 - hooks)
    assert history.metadata["held_out"] == "8 points of `held_out`"
    assert np.isfinite(history["over_floor"]).all()


LABELLED = MixtureDataModule([4], [0.5, 0.5], separation=3.0, num_samples=256, batch_size=64, num_val_samples=40)


def test_under_labels_the_floor_within_classes_stands_beside(tmp_path):
    """What denoises each class by its own covariance is on the floor of the class, and below that of all data."""

    class PerClass(DiffusionModule):
        def denoise(self, z, sigma, label=None):
            known = super().denoise(z, sigma, label)
            if label is None:
                return known
            each = torch.stack([one(z, sigma) for one in self.filters])
            return each[label.clamp_max(1), torch.arange(len(z))].to(z) + 0 * known

    found = tracker(num_samples=32)
    module = PerClass(ResidualMLP([4], 8, 1, 4, num_classes=2), num_classes=2, class_dropout=0.1)
    LABELLED.setup()
    x, label = LABELLED.train_rows.batch(range(256))
    x = x.double()
    module.filters = []
    for c in (0, 1):
        own = x[label == c]
        module.filters.append(_dense(own.mean(0), torch.cov(own.T, correction=0)))
    run(tmp_path, [found], module, data=LABELLED, max_steps=1)
    history = found.history
    np.testing.assert_allclose(history["over_class_floor"][0], 1, rtol=1e-4)
    np.testing.assert_allclose(history["over_class_floor_error"][0], 0, atol=1e-4)
    assert history["over_floor"][0].min() < 0.7
    np.testing.assert_allclose(
        history["over_floor"][0], history["class_error"] / history["linear_error"], rtol=1e-4, atol=0
    )
    assert (history["class_floor"] < history["linear_floor"]).all()


def _dense(mean, covariance):
    def denoiser(z, sigma):
        eye = torch.eye(len(mean), dtype=torch.float64)
        solved = torch.linalg.solve(
            covariance + sigma.double()[:, None, None] ** 2 * eye, (z.double() - mean)[..., None]
        )
        return mean + solved[..., 0] @ covariance

    return denoiser


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"data": examples()}, "pass `held_out`"),
        ({"denoiser": lambda z, s, y: z, "condition": torch.zeros(2, 1)}, "conditions of held-out points"),
    ],
)
def test_without_points_the_reason_is_given(tmp_path, options, reason):
    history = run(tmp_path, [tracker(**options)], of_body(), validation(), max_steps=1)
    assert reason in history.metadata["held_out"]
    assert "over_floor" not in history


def test_validation_sets_that_are_none(tmp_path):
    """The training set itself, and one of another shape; given as `held_out`, the latter is an error."""
    data, other = loader(), loader(torch.zeros(20, 5))
    for val, reason in ((DataLoader(data.dataset, 4), "no validation set"), (other, "cannot be read")):
        # The sanity check would fail on another shape; the loader is set up all the same.
        options = {"num_sanity_val_steps": 0, "max_steps": 1, "data": data}
        assert reason in run(tmp_path, [tracker()], of_body(), val, **options).metadata["held_out"]
    with pytest.raises(ValueError, match="`held_out` must hold examples of shape"):
        run(tmp_path, [tracker(held_out=other)], of_body())


def test_it_can_be_switched_off(tmp_path):
    history = run(tmp_path, [tracker(track_floor=False)], of_body(), validation(), max_steps=1)
    assert not {"bins", "over_floor", "training_error"} & set(history.names)


def test_fewer_modes_than_dimensions_leave_their_variance_to_the_rest(tmp_path):
    """The rest is that of the training data, by hand."""
    data = bare_loop.examples()
    found = SpectralMonitor(
        Body(), data, lambda z, s: z, basis=_leading(2), held_out=TensorDataset(HELD_OUT), sampling=bare_loop.SAMPLING
    )
    centred = (data - data.mean(0)).double()
    left = torch.linalg.svdvals(centred)[2:].square().sum() / len(data) / (DIM - 2)
    sigma = found.history["levels"][1]
    variance = np.r_[found.history.target, np.full(DIM - 2, float(left))]
    floor = (variance * sigma**2 / (variance + sigma**2)).sum()
    np.testing.assert_allclose(found.history["linear_floor"][1], floor, rtol=1e-5)


def _leading(count):
    from spectral_lightning.spectra import Eigenmodes

    return Eigenmodes(count)
