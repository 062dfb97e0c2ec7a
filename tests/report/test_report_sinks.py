"""What loggers can do is asked of them; layouts and figure files are written whole and once."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from spectral_lightning.report import LoggerSinks


class Writer:
    def __init__(self):
        self.layouts, self.stored = [], []

    def add_custom_scalars(self, layout):
        self.layouts.append(layout)

    def log_image(self, run_id, image, *, key, step):
        self.stored.append((run_id, image.shape, key, step))


class OfARun:
    """Leaves images of a run to its client."""

    run_id = "r7"

    def __init__(self):
        self.experiment = Writer()


def test_the_layout_of_one_object_is_written_once():
    logger = OfARun()
    sinks = LoggerSinks([logger])
    sinks.write_layout()
    assert logger.experiment.layouts == []  # nothing was asked for yet
    sinks.chart("c", "one", ["x/mode_0001", "y+z"])
    sinks.chart("c", "two", ["w"])
    sinks.write_layout()
    sinks.write_layout()
    assert logger.experiment.layouts == [
        {"c": {"one": ["Multiline", ["^x/mode_0001$", r"^y\+z$"]], "two": ["Multiline", ["^w$"]]}}
    ]


def test_a_client_that_stores_images_of_a_run_gets_them():
    logger = OfARun()
    LoggerSinks([logger]).figure("spectral/overlay", Figure(figsize=(2, 1)), 5)
    assert logger.experiment.stored == [("r7", (150, 300, 3), "spectral/overlay", 5)]


def test_a_figure_file_is_replaced_by_the_next_of_its_tag_or_left_as_it_was(tmp_path, monkeypatch):
    sinks, path = LoggerSinks([], tmp_path / "figures"), tmp_path / "figures" / "overlay.png"
    sinks.figure("run/overlay", Figure(figsize=(1, 1)), 1)
    first = path.read_bytes()
    sinks.figure("run/overlay", Figure(figsize=(2, 1)), 2)
    second = path.read_bytes()
    assert second != first

    def half(image, path, **options):
        path.write_bytes(first[:50])
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="no space"):
        sinks.figure("run/overlay", Figure(figsize=(1, 1)), 3)
    assert [p.name for p in path.parent.iterdir()] == ["overlay.png"]
    assert path.read_bytes() == second
