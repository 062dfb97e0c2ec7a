"""What reaches the loggers: read back from their files."""

import csv
import json
import re
import struct

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from spectral_lightning.callbacks import EmergenceFitter
from spectral_lightning.report import LoggerSinks
from tests.support.tiny_training import OwnModule, loader, three, tracker, trainer, without_drawing

HYPER_PARAMETERS = {"rate": 0.5, "kind": "mine"}

STEPS = [0, 1, 2, 5, 10]


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    without_drawing(monkeypatch)


def fit(path, logger, callbacks=None):
    callbacks = three() if callbacks is None else callbacks
    run = trainer(path, callbacks, logger=logger)
    run.fit(OwnModule(), loader())
    return callbacks, run


def events_of(logger):
    # 0 keeps all of each kind.
    sizes = {"scalars": 0, "images": 0, "tensors": 0, "compressedHistograms": 0, "histograms": 0}
    return EventAccumulator(logger.log_dir, sizes).Reload()


class PictureLogger(Logger):
    """A logger that takes images and no figures."""

    def __init__(self):
        super().__init__()
        self.images, self.rows = [], []

    @property
    def name(self):
        return "pictures"

    @property
    def version(self):
        return 0

    @property
    def experiment(self):
        return None

    def log_hyperparams(self, *_args, **_options):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_image(self, key, images, step=None):
        self.images.append((key, images, step))


def test_scalars_of_the_event_files_are_the_history(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="log", version=0)
    (own, _overlay, fitter), _ = fit(tmp_path, logger)
    events = events_of(logger)
    for k in range(8):
        for kind, expected in (("variance", own.history.variance[:, k]), ("target", [own.history.fixed_point[k]] * 5)):
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


def test_the_layout_is_written_once_with_anchored_patterns(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="log", version=0)
    fit(tmp_path, logger, three(name="a.b"))
    tensors = events_of(logger).Tensors("custom_scalars__config__")
    assert len(tensors) == 1
    layout = layout_pb2.Layout.FromString(tensors[0].tensor_proto.string_val[0])
    (category,) = layout.category
    assert len(category.chart) == 8
    for k, chart in enumerate(category.chart, start=1):
        names = [f"a.b/{kind}/mode_{k:04d}" for kind in ("variance", "theory", "target")]
        patterns = list(chart.multiline.tag)
        assert patterns == [f"^{re.escape(name)}$" for name in names]
        assert chart.title.startswith(f"mode {k}, data variance ")
        for pattern, name in zip(patterns, names, strict=True):
            assert re.match(pattern, name)
            assert not re.match(pattern, name + "0")
            assert not re.match(pattern, name.replace(".", "x", 1))


def test_figures_stand_at_the_steps_they_show(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="log", version=0)
    fit(tmp_path, logger)
    events = events_of(logger)
    for tag in ("spectral/overlay", "spectral/emergence"):
        # One a decade; the second at step 10 has the prediction, whose clock is fitted only in the end.
        assert [e.step for e in events.Images(tag)] == [1, 10, 10]
    figures = tmp_path / "log" / "version_0" / "spectral" / "figures"
    assert {p.name for p in figures.iterdir()} == {"overlay.png", "emergence.png"}


def test_no_figure_is_drawn_twice(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="log", version=0)
    fit(tmp_path, logger, [tracker(), EmergenceFitter(figures_per_decade=1)])
    assert [e.step for e in events_of(logger).Images("spectral/emergence")] == [1, 10]


def test_modes_are_a_readable_selection_with_tags_that_sort(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="log", version=0)
    (own,), _ = fit(tmp_path, logger, [tracker(log_modes=3)])
    tags = [t for t in events_of(logger).Tags()["scalars"] if "/variance/" in t]
    assert sorted(tags) == [own.session.results.tag("variance", k) for k in own.session.results.shown_modes]
    assert own.session.results.shown_modes == [0, 2, 7]  # even in the logarithm of the rank: 1, 2.83, 8
    assert [own.session.results.tag("variance", k) for k in (0, 9, 3071)] == [
        f"spectral/variance/mode_{k:04d}" for k in (1, 10, 3072)
    ]
    assert own.history.variance.shape == (5, 8)  # all are in the table


def test_a_csv_logger_holds_the_same(tmp_path):
    logger = CSVLogger(tmp_path, name="log", version=0)
    (own, *_), _ = fit(tmp_path, logger)
    with (tmp_path / "log" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("spectral/variance/mode_0001")]
    assert [int(row["step"]) for row in rows] == STEPS
    for k in range(8):
        column = [float(row[f"spectral/variance/mode_{k + 1:04d}"]) for row in rows]
        np.testing.assert_allclose(column, own.history.variance[:, k], rtol=1e-6)
    assert (tmp_path / "log" / "version_0" / "spectral" / "history.npz").exists()


def test_several_loggers_at_once(tmp_path):
    board, table, pictures = (
        TensorBoardLogger(tmp_path, name="board", version=0),
        CSVLogger(tmp_path, name="table", version=0),
        PictureLogger(),
    )
    (own, *_), _ = fit(tmp_path, [board, table, pictures])
    assert [e.step for e in events_of(board).Scalars("spectral/alignment")] == STEPS
    assert "spectral/alignment" in (tmp_path / "table" / "version_0" / "metrics.csv").read_text()
    seen = [(step, row["spectral/alignment"]) for step, row in pictures.rows if "spectral/alignment" in row]
    assert seen == list(zip(STEPS, own.history["alignment"].tolist(), strict=True))
    # One directory of results, beside the first logger's files.
    assert [p.parent.parent.name for p in tmp_path.rglob("history.npz")] == ["version_0"]
    assert (tmp_path / "board" / "version_0" / "spectral" / "history.npz").exists()


def test_a_logger_that_takes_images_only_gets_pixels(tmp_path):
    pictures = PictureLogger()
    fit(tmp_path, pictures)
    assert {key for key, _, _ in pictures.images} == {"spectral/overlay", "spectral/emergence"}
    for _, images, step in pictures.images:
        assert step in STEPS
        (image,) = images
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3


def test_headline_values_are_published_to_other_callbacks(tmp_path):
    class Reader(pl.Callback):
        seen = ()

        def on_train_batch_end(self, trainer, *_args):
            self.seen = (*self.seen, float(trainer.callback_metrics["spectral/alignment"]))

    reader = Reader()
    (own, _), run = fit(tmp_path, False, [tracker(), reader])
    rows = np.searchsorted(STEPS, range(1, 11), side="right") - 1
    # The tracker stands before the reader, so that a measurement is seen at its own step; 10 is the final one.
    np.testing.assert_allclose(reader.seen, own.history["alignment"][rows], rtol=1e-6)
    assert float(run.callback_metrics["spectral/non_finite"]) == 0


def test_the_layout_of_one_object_is_written_once():
    class Writer:
        def __init__(self):
            self.layouts = []

        def add_custom_scalars(self, layout):
            self.layouts.append(layout)

    class OneExperiment(PictureLogger):
        writer = Writer()

        @property
        def experiment(self):
            return self.writer

    logger = OneExperiment()
    sinks = LoggerSinks([logger])
    sinks.write_layout()
    assert logger.writer.layouts == []  # nothing was asked for yet
    sinks.chart("c", "one", ["x/mode_0001", "y+z"])
    sinks.chart("c", "two", ["w"])
    sinks.write_layout()
    sinks.write_layout()
    assert logger.writer.layouts == [
        {"c": {"one": ["Multiline", ["^x/mode_0001$", r"^y\+z$"]], "two": ["Multiline", ["^w$"]]}}
    ]


def test_a_figure_file_is_replaced_by_the_next_of_its_tag(tmp_path):
    sinks = LoggerSinks([], tmp_path / "figures")
    sinks.figure("run/overlay", Figure(figsize=(1, 1)), 1)
    first = (tmp_path / "figures" / "overlay.png").read_bytes()
    sinks.figure("run/overlay", Figure(figsize=(2, 1)), 2)
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["overlay.png"]
    assert (tmp_path / "figures" / "overlay.png").read_bytes() != first


def test_a_figure_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    sinks = LoggerSinks([], tmp_path)
    sinks.figure("run/overlay", Figure(figsize=(1, 1)), 1)
    first = (tmp_path / "overlay.png").read_bytes()

    def half(image, path, **options):
        path.write_bytes(first[:50])
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="no space"):
        sinks.figure("run/overlay", Figure(figsize=(2, 1)), 2)
    assert [p.name for p in tmp_path.iterdir()] == ["overlay.png"]
    assert (tmp_path / "overlay.png").read_bytes() == first


class WithHyperParameters(OwnModule):
    """A module whose hyper-parameters Lightning logs."""

    def __init__(self, **hyper_parameters):
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


class Late(Callback):
    """Logs for step 0 when others have logged for step 10."""

    def on_train_end(self, trainer, module):
        trainer.callbacks[0].session.results.sinks.scalars({"spectral/late": 7.0}, 0)


def attach_to(path, logger):
    callbacks = [*three(), Late()]
    trainer(path, callbacks, logger=logger, log_every_n_steps=1).fit(WithHyperParameters(**HYPER_PARAMETERS), loader())
    return callbacks[0]


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
    own = attach_to(tmp_path, WandbLogger(save_dir=tmp_path, offline=True, project="p"))
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
    (late,) = [row for row in rows if "spectral/late" in row]
    assert late["trainer/global_step"] == 0
    images = [row for row in rows if "spectral/overlay/filenames" in row]
    assert [row["trainer/global_step"] for row in images] == [1, 10, 10]
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/spectral/overlay*.png"))) == 3
    # The axis of every chart is the step of the training, not of the log.
    metrics = [r.metric for r in records if r.WhichOneof("record_type") == "metric"]
    assert [m.step_metric for m in metrics if m.glob_name == "*"] == ["trainer/global_step"]
    config = {}
    for record in records:
        if record.WhichOneof("record_type") == "config":
            config.update(items_of(record.config.update))
    assert {k: v for k, v in config.items() if not k.startswith("_")} == HYPER_PARAMETERS


@pytest.mark.slow
def test_mlflow_in_local_files(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'ml'}", artifact_location=str(tmp_path / "artifacts"))
    own = attach_to(tmp_path, logger)
    client, run = logger.experiment, logger.run_id
    for k in range(8):
        found = client.get_metric_history(run, f"spectral/variance/mode_{k + 1:04d}")
        assert [m.step for m in found] == STEPS
        np.testing.assert_allclose([m.value for m in found], own.history.variance[:, k], rtol=1e-12)
    assert [(m.step, m.value) for m in client.get_metric_history(run, "spectral/late")] == [(0, 7.0)]
    assert client.get_run(run).data.params == {k: str(v) for k, v in HYPER_PARAMETERS.items()}
    images = sorted(p.name for p in (tmp_path / "artifacts").rglob("*.png"))
    assert [re.search(r"overlay.step.(\d+)", name).group(1) for name in images if "overlay" in name] == [
        "1",
        "10",
        "10",
    ]


@pytest.mark.parametrize("tracked", [False, True])
def test_hyper_parameters_are_the_modules_own(tmp_path, tracked):
    logger = CSVLogger(tmp_path, name="log", version=0)
    trainer(tmp_path, three() if tracked else [], logger=logger).fit(WithHyperParameters(**HYPER_PARAMETERS), loader())
    found = (tmp_path / "log" / "version_0" / "hparams.yaml").read_text()
    assert sorted(found.split("\n")) == ["", "kind: mine", "rate: 0.5"]


def test_a_client_that_stores_images_of_a_run_gets_them():
    class Client:
        def __init__(self):
            self.stored = []

        def log_image(self, run_id, image, *, key, step):
            self.stored.append((run_id, image.shape, key, step))

    class RunLogger(Logger):
        name, version, run_id, experiment = "runs", 0, "r7", Client()

        def log_hyperparams(self, *_args, **_options):
            raise AssertionError("not ours to log")

        def log_metrics(self, metrics, step=None):
            pass

    logger = RunLogger()
    LoggerSinks([logger]).figure("spectral/overlay", Figure(figsize=(2, 1)), 5)
    assert logger.experiment.stored == [("r7", (150, 300, 3), "spectral/overlay", 5)]


def test_what_takes_no_images_is_left_alone(tmp_path):
    logger = CSVLogger(tmp_path, name="log", version=0)
    LoggerSinks([logger], tmp_path / "figures").figure("spectral/overlay", Figure(figsize=(1, 1)), 5)
    assert (tmp_path / "figures" / "overlay.png").exists()
    assert not list((tmp_path / "log").rglob("*.png"))


def test_a_run_without_loggers_keeps_its_files(tmp_path):
    (own, *_), run = fit(tmp_path, False)
    assert own.session.results.sinks.loggers == run.loggers == []
    assert (tmp_path / "spectral" / "history.csv").exists()
    assert (tmp_path / "spectral" / "figures" / "overlay.png").exists()
