"""What reaches the loggers: read back from their files."""

import csv
import json
import re
import struct

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from tests.support.tiny_training import OwnModule, draw_blanks, files, fit, three, tracker

STEPS = [0, 1, 2, 5, 10]
HYPER_PARAMETERS = {"rate": 0.5, "kind": "mine"}


class PictureLogger(Logger):
    """A logger that takes images and no figures."""

    name, version, experiment = "pictures", 0, None

    def __init__(self):
        super().__init__()
        self.images, self.rows = [], []

    def log_hyperparams(self, *_args, **_options):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_image(self, key, images, step=None):
        self.images.append((key, images, step))


class WithHyperParameters(OwnModule):
    """A module whose hyper-parameters Lightning logs, and which logs itself in every step."""

    def __init__(self, **hyper_parameters):
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


class Late(pl.Callback):
    """Reads the headline values, and logs for step 0 when others have logged for step 10."""

    seen = ()

    def on_train_batch_end(self, trainer, *_args):
        self.seen = (*self.seen, float(trainer.callback_metrics["spectral/alignment"]))

    def on_train_end(self, trainer, module):
        trainer.callbacks[0].session.results.sinks.scalars({"spectral/late": 7.0}, 0)


def attached(path, logger, **options):
    """All callbacks in a training with figures; the tracker, the fitter and what :class:`Late` saw."""
    callbacks, late = three(figures=True, **options), Late()
    with pytest.MonkeyPatch.context() as patch:
        draw_blanks(patch)
        fit(path, [*callbacks, late], WithHyperParameters(**HYPER_PARAMETERS), logger=logger, log_every_n_steps=1)
    return callbacks[0], callbacks[2], late.seen


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Several loggers at once."""
    path = tmp_path_factory.mktemp("loggers")
    board, table = TensorBoardLogger(path, name="board", version=0), CSVLogger(path, name="table", version=0)
    pictures = PictureLogger()
    found = attached(path, [board, table, pictures], name="spectral")
    sizes = {"scalars": 0, "images": 0, "tensors": 0, "compressedHistograms": 0, "histograms": 0}  # 0 keeps all
    return path, *found, EventAccumulator(board.log_dir, sizes).Reload(), pictures


def test_scalars_of_the_event_files_are_the_history(logged):
    _, own, fitter, _, events, _ = logged
    for k in range(8):
        for kind, expected in (
            ("variance", own.history.variance[:, k]),
            ("fixed_point", [own.history.fixed_point[k]] * 5),
        ):
            found = events.Scalars(f"spectral/{kind}/mode_{k + 1:04d}")
            assert [e.step for e in found] == STEPS
            # Event files hold single precision.
            np.testing.assert_array_equal([e.value for e in found], np.float32(expected))
    found = events.Scalars("spectral/alignment")
    np.testing.assert_array_equal([e.value for e in found], np.float32(own.history["alignment"]))
    assert [e.step for e in found] == STEPS
    crossed = events.Scalars("spectral/emergence/falling_crossed")
    assert [e.step for e in crossed] == STEPS
    assert crossed[-1].value == fitter.result.measured_law("falling").count
    assert not [tag for tag in events.Tags()["scalars"] if tag.endswith("exponent")]  # never of eight modes


def test_the_layout_is_written_once_with_anchored_patterns(logged):
    (tensor,) = logged[4].Tensors("custom_scalars__config__")
    learnt, category = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0]).category
    assert learnt.title.startswith("What has been learnt")  # first
    assert "^spectral/answers/share_of_modes$" in learnt.chart[0].multiline.tag
    assert len(category.chart) == 8
    for k, chart in enumerate(category.chart, start=1):
        names = [f"spectral/{kind}/mode_{k:04d}" for kind in ("variance", "theory", "fixed_point")]
        assert list(chart.multiline.tag) == [f"^{re.escape(name)}$" for name in names]
        assert chart.title.startswith(f"mode {k}, data variance ")


def test_figures_stand_at_the_steps_they_show(logged):
    path, *_, events, pictures = logged
    for tag in ("spectral/overlay", "spectral/emergence"):
        # One a decade from step 100 on; this run is shorter and has the last one only.
        assert [e.step for e in events.Images(tag)] == [10]
        assert [step for key, _, step in pictures.images if key == tag] == [10]
    assert {p.name for p in path.rglob("*.png")} == {"overlay.png", "emergence.png"}
    for _, (image,), _ in pictures.images:
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)


def test_a_csv_logger_holds_the_same(logged):
    path, own, *_ = logged
    with (path / "table" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("spectral/variance/mode_0001")]
    assert [int(row["step"]) for row in rows] == STEPS
    for k in range(8):
        column = [float(row[f"spectral/variance/mode_{k + 1:04d}"]) for row in rows]
        np.testing.assert_allclose(column, own.history.variance[:, k], rtol=1e-6)
    # Hyper-parameters are the module's alone.
    text = (path / "table" / "version_0" / "hparams.yaml").read_text()
    assert sorted(text.split("\n")) == ["", "kind: mine", "rate: 0.5"]


def test_there_is_one_directory_beside_the_first_loggers_files(logged):
    path, own, *_, pictures = logged
    assert [p.relative_to(path).parts[:3] for p in path.rglob("history.npz")] == [("board", "version_0", "spectral")]
    seen = [(step, row["spectral/alignment"]) for step, row in pictures.rows if "spectral/alignment" in row]
    assert seen == list(zip(STEPS, own.history["alignment"].tolist(), strict=True))


def test_headline_values_are_published_to_other_callbacks(logged):
    _, own, _, seen, *_ = logged
    rows = np.searchsorted(STEPS, range(1, 11), side="right") - 1
    # The tracker stands before the reader, so that a measurement is seen at its own step; 10 is the final one.
    np.testing.assert_allclose(seen, own.history["alignment"][rows], rtol=1e-6)


@pytest.mark.parametrize("logger", [True, False])
def test_modes_are_a_readable_selection_with_tags_that_sort(tmp_path, logger):
    pictures, own = PictureLogger(), tracker(log_modes=3, name="a.b")
    fit(tmp_path, [own], logger=[pictures] if logger else False)
    tags = {tag for _, row in pictures.rows for tag in row if "/variance/" in tag}
    assert tags == ({f"a.b/variance/mode_{k:04d}" for k in (1, 3, 8)} if logger else set())  # evenly in log rank
    assert own.session.results.tag("variance", 3071) == "a.b/variance/mode_3072"
    assert own.history.variance.shape == (5, 8)  # all are in the table
    assert {"history.npz", "history.csv"} <= files(tmp_path)


def wandb_records(file):
    """The records of a run that was offline: a log of blocks of 32 KiB, as in LevelDB."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def items_of(update):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    own, *_ = attached(tmp_path, WandbLogger(save_dir=tmp_path, offline=True, project="p"))
    wandb.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = list(wandb_records(file))
    rows = [items_of(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
    for k in range(8):
        tag = f"spectral/variance/mode_{k + 1:04d}"
        found = [(row["trainer/global_step"], row[tag]) for row in rows if tag in row]
        # Steps of its own: nothing is dropped, whatever the module logs in between.
        assert [step for step, _ in found] == STEPS
        np.testing.assert_allclose([value for _, value in found], own.history.variance[:, k], rtol=1e-12)
    assert [row["trainer/global_step"] for row in rows if "loss" in row] == list(range(10))
    assert [row["trainer/global_step"] for row in rows if "spectral/late" in row] == [0]
    images = [row for row in rows if "spectral/overlay/filenames" in row]
    assert [row["trainer/global_step"] for row in images] == [10]
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/spectral/overlay*.png"))) == 1
    # The axis of every chart is the step of the training, not of the log.
    metrics = [r.metric for r in records if r.WhichOneof("record_type") == "metric"]
    assert [m.step_metric for m in metrics if m.glob_name == "*"] == ["trainer/global_step"]
    updates = [items_of(r.config.update) for r in records if r.WhichOneof("record_type") == "config"]
    config = {key: value for update in updates for key, value in update.items() if not key.startswith("_")}
    assert config == HYPER_PARAMETERS


@pytest.mark.slow
def test_mlflow_in_local_files(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'ml'}", artifact_location=str(tmp_path / "artifacts"))
    own, *_ = attached(tmp_path, logger)
    client, run = logger.experiment, logger.run_id
    for k in range(8):
        found = client.get_metric_history(run, f"spectral/variance/mode_{k + 1:04d}")
        assert [m.step for m in found] == STEPS
        np.testing.assert_allclose([m.value for m in found], own.history.variance[:, k], rtol=1e-12)
    assert [(m.step, m.value) for m in client.get_metric_history(run, "spectral/late")] == [(0, 7.0)]
    assert client.get_run(run).data.params == {k: str(v) for k, v in HYPER_PARAMETERS.items()}
    images = sorted(p.name for p in (tmp_path / "artifacts").rglob("*.png"))
    steps = [re.search(r"overlay.step.(\d+)", name).group(1) for name in images if "overlay" in name]
    assert steps == ["10"]
