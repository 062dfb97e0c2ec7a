"""What the report shows, read back from the HTML and compared with the run's files."""

import base64
import json
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from spectral_lightning.cli.main import main
from spectral_lightning.prediction import compare, outlook
from spectral_lightning.report import RunFiles, write_report
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory
from spectral_lightning.spectra.files import write_arrays

TARGET = np.geomspace(1.0, 1e-3, 20)
STEPS = [0, *np.unique(np.geomspace(1, 1e4, 30).round()).astype(int)]
LEVELS = np.geomspace(10, 0.01, 5)


class Page(HTMLParser):
    """Tags, cells of tables, and all text outside scripts and styles."""

    def __init__(self, file):
        super().__init__()
        self.source = file.read_text()
        self.tags, self.tables, self.text = [], {}, []
        self._table = self._cell = None
        self.feed(self.source)
        self.data = json.loads(re.search(r'id="data">(.*?)</script>', self.source, re.S).group(1))
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._table = self.tables.setdefault(dict(attrs).get("id"), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("script", "style"):
            return
        self.text.append(data)
        if self._cell:
            self._table[-1][-1] += data

    def series(self, chart, **wanted):
        (found,) = [s for s in self.data[chart]["series"] if all(s[k] == v for k, v in wanted.items())]
        return found


def history(delay=1.0, end=10_000, modes=20, **metadata):
    target = TARGET[:modes]
    table = SpectralHistory({"target": target, "fixed_point": 1.1 * target, "levels": LEVELS}, metadata)
    for step in (s for s in STEPS if s <= end):
        share = np.exp(-step * target / delay)
        variance = 4 * share + 1.1 * target * (1 - share)
        ratio = 1 + np.exp(-step / 100) * LEVELS
        gain = target / (target + LEVELS[:, None] ** 2) * (1 - share)
        fields = {"over_floor": ratio, "over_floor_error": 0.01 * ratio, "gain": gain}
        table.append(step=step, variance=variance, standard_error=0.05 * variance, **fields)
    return table


def save(path, table, prediction=None, **documents):
    files = RunFiles(path)
    HistoryDirectory(files.history).begin(table)
    table.save(files / "history.npz")
    if prediction is not None:
        prediction.save(files / "prediction.npz")
    for name, document in documents.items():
        files.write_json(f"{name}.json", document)
    return files


def report(*runs, **options):
    return Page(write_report([str(run) for run in runs], **options))


def numbers(text):
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*\.?\d*(?:e-?\d+)?", text)]


@pytest.fixture
def run(tmp_path):
    fit = {"rms": 0.25, "baseline": 1.5, "cells": 12}
    return save(
        tmp_path / "mine" / "spectral",
        history(end=1000, weights="raw weights", sampler="heun, 12 steps"),
        history(delay=2.0, end=1000),
        emergence={"criterion": "harmonic", "gray_factor": 2.0},
        overlay={"theory": "OneLayer()", "goodness_of_fit": fit, "departures": ["Adam used"], "scale": 2.5},
        cost={"seconds": {"sampling": 3.0, "figures": 1.0}, "total": 40.0, "failures": []},
        forecast={"end": 2500},
    )


def test_curves_and_heat_map_hold_the_files_numbers(run):
    page, measured = report(run.path), SpectralHistory.load(run / "history.npz")
    predicted = SpectralHistory.load(run / "prediction.npz")
    assert {s["key"] for s in page.data["run0-curves"]["series"]} >= {"0", "19"}
    for table, kind in ((measured, "measured"), (predicted, "theory")):
        for k in (0, 19):
            drawn = page.series("run0-curves", key=str(k), kind=kind)
            np.testing.assert_array_equal(drawn["x"], table.steps)
            np.testing.assert_allclose(drawn["y"], table.variance[:, k], rtol=1e-5)
    band = page.series("run0-curves", key="0", kind="measured")
    np.testing.assert_allclose(band["high"], measured.variance[:, 0] * np.exp(1.96 * 0.05), rtol=1e-5)
    heat = page.data["run0-heat"]
    values = np.frombuffer(base64.b64decode(heat["values"]), "<f4").reshape(len(heat["steps"]), -1)
    np.testing.assert_array_equal(heat["steps"], measured.steps)
    np.testing.assert_allclose(values, measured.variance, rtol=1e-6)
    np.testing.assert_allclose(heat["reference"], measured.fixed_point, rtol=1e-5)


def test_laws_modes_and_ratios_are_those_of_the_comparison(run):
    page, measured = report(run.path), SpectralHistory.load(run / "history.npz")
    result = compare(measured, SpectralHistory.load(run / "prediction.npz"), "harmonic", 2.0)
    falling = next(row for row in page.tables["run0-laws"] if row[0] == "falling modes")
    assert falling[1:] == [str(result.measured_law("falling")), str(result.predicted_law("falling"))]
    crossed = result.measured.crossed("falling")
    assert 0 < crossed.sum() < result.measured.eligible("falling").sum()
    assert f"{crossed.sum()} / {result.measured.eligible('falling').sum()}" in page.words
    drawn = page.series("run0-law", key="falling", kind="emerged")
    np.testing.assert_allclose(drawn["x"], TARGET[crossed], rtol=1e-5)
    np.testing.assert_allclose(drawn["y"], result.measured.time[crossed], rtol=1e-5)
    waiting = page.series("run0-law", key="falling", kind="not yet")
    np.testing.assert_allclose(waiting["x"], TARGET[result.measured.eligible("falling") & ~crossed], rtol=1e-5)
    ratio = page.series("run0-ratio", key="now")
    np.testing.assert_allclose(ratio["y"], measured.variance[-1] / TARGET, rtol=1e-5)
    for k, row in enumerate(page.tables["run0-modes"][1:]):
        columns = (TARGET, measured.fixed_point, measured.variance[0], measured.variance[-1])
        np.testing.assert_allclose([*map(float, row[1:5])], [c[k] for c in columns], rtol=1e-4)
        if crossed[k]:
            assert float(row[7].replace(",", "")) == pytest.approx(result.measured.time[k], rel=1e-4)


def test_the_forecast_is_that_of_the_history_up_to_the_planned_end(run):
    page, tables = report(run.path), [SpectralHistory.load(run / f"{n}.npz") for n in ("history", "prediction")]
    expected = outlook(*tables, criterion="harmonic", end=2500)
    assert expected.sentence in page.words
    assert len(expected.rows()) == 4
    for title, text in expected.rows():
        assert f"{title} {text}" in page.words


def test_gains_and_floor_hold_the_files_numbers(run):
    page, measured = report(run.path), SpectralHistory.load(run / "history.npz")
    gain = page.series("run0-gain", key="0", kind="measured")
    np.testing.assert_allclose(gain["y"], measured["gain"][-1, ::-1, 0], rtol=1e-5)
    theory = page.series("run0-gain", key="0", kind="theory")
    np.testing.assert_allclose(
        theory["y"], SpectralHistory.load(run / "prediction.npz")["gain"][-1, ::-1, 0], rtol=1e-5
    )
    floor = page.series("run0-floor", key="held out")
    np.testing.assert_allclose(floor["x"], LEVELS[::-1], rtol=1e-5)
    np.testing.assert_allclose(floor["y"], measured["over_floor"][-1, ::-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "document", "shown"),
    [
        ("cost", {"seconds": {"sampling": 1.0, "theory": 2.0}, "total": 30.0}, "Tracking took 3.0 of 30.0 s, 10.0%"),
        ("overlay", {"theory": "DeepLinear()", "departures": []}, "DeepLinear()"),
        ("overlay", {"goodness_of_fit": {"rms": 0.5, "baseline": 3, "cells": 7}}, "error 0.5; 3 for unchanged"),
        (
            "overlay",
            {"judgement": {"fitted_to_step": 7, "all_steps": {"verdict": "theory 0.5 (1) beats x", "cells": 12}}},
            "Rms log error (fitted numbers), all steps theory 0.5 (1) beats x; 12 points",
        ),
        ("forecast", {"end": 1234567}, "At the end, step 1,234,567"),
    ],
    ids=["cost", "theory", "fit", "baselines", "forecast"],
)
def test_documents_are_read_from_the_files(run, name, document, shown):
    assert shown not in report(run.path).words
    run.write_json(f"{name}.json", document)
    assert shown in report(run.path).words


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("prediction.npz", "No prediction: attach AnalyticOverlay."),
        ("emergence.json", "No emergence.json"),
        ("overlay.json", "No theory to judge"),
        ("cost.json", "The run has not ended"),
        ("forecast.json", "No planned end"),
    ],
)
def test_a_missing_part_costs_one_line(run, file, line):
    assert line not in report(run.path).words
    (run / file).unlink()
    assert line in report(run.path).words


@pytest.mark.parametrize("file", ["prediction.npz", "overlay.json", "cost.json", "modes.npz", "samples.npz"])
def test_a_damaged_part_is_named(run, file):
    (run / file).write_bytes(b"\x00{")
    assert f"{file} cannot be read" in report(run.path).words


def test_a_killed_run_and_a_bare_file_are_read(run):
    whole = report(run.path).tables["run0-modes"]
    (run / "history.npz").rename(run / "table.npz")
    assert report(run.path).tables["run0-modes"] == whole
    bare = report(run / "table.npz")
    assert [row[:6] for row in bare.tables["run0-modes"]] == [row[:6] for row in whole]
    assert "No prediction" in bare.words


def empty():
    return SpectralHistory({"target": TARGET, "fixed_point": TARGET})


def one_row():
    return history(end=0)


def all_nan():
    table = empty()
    for step in (0, 10):
        table.append(step=step, variance=np.full(20, np.nan), standard_error=np.full(20, np.nan))
    return table


def all_censored():
    return history(delay=1e9)


def two_modes():
    return history(modes=2)


def no_variance():
    table = SpectralHistory({"target": np.zeros(3), "fixed_point": np.zeros(3), "null": np.ones(3, bool)})
    table.append(step=0, variance=np.zeros(3))
    return table


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty, "the history is empty"),
        (one_row, "1 measurement"),
        (all_nan, "20 have no finite variance before training"),
        (all_censored, "0 % of the modes"),
        (two_modes, "fewer than 10 modes"),
        (no_variance, "3 of them without variance"),
    ],
)
def test_poor_histories_give_a_report(tmp_path, make, said):
    files = save(tmp_path / "spectral", make())
    assert said in report(files.path).words


def test_histories_that_cannot_be_read_are_refused(tmp_path, run, monkeypatch):
    with pytest.raises(FileNotFoundError, match="`runs` must lead to tracked runs"):
        write_report([str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match="`runs` must name"):
        write_report([])
    with monkeypatch.context() as newer:
        newer.setattr(SpectralHistory, "FORMAT", 99)
        history().save(run / "history.npz")
    with pytest.raises(ValueError, match="format 99, newer than"):
        write_report([str(run.path)])


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'"


def test_names_cannot_inject(tmp_path, run):
    where = tmp_path / "<script>alert(1)<" / 'x" onload="alert(1)'
    modes = [f"{EVIL} {k}" for k in range(20)]
    groups = {"group_target": TARGET[None], "group_fixed_point": TARGET[None], "group_share": [1.0]}
    table = SpectralHistory(
        {"target": TARGET, "fixed_point": TARGET, **groups},
        {"modes": modes, "basis": EVIL, "weights": EVIL, "groups": [EVIL]},
    )
    for step in (0, 10, 1000):
        row = {f"group_{name}": np.ones((1, 20)) for name in ("variance", "standard_error", "mean_deviation")}
        table.append(step=step, variance=4 * TARGET**0, group_count=[1], **row)
    bad = save(where, table, history(), overlay={EVIL: EVIL, "departures": [EVIL]}, forecast={EVIL: EVIL})
    (bad.path / "config.yaml").write_text(EVIL)
    plain = report(run.path)
    scripts = sum(tag == "script" for tag, _ in plain.tags)
    for page in (report(bad.path), report(bad.path, run.path)):
        assert sum(tag == "script" for tag, _ in page.tags) == scripts == 2
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert {a["src"][:22] for tag, a in page.tags if tag == "img"} <= {"data:image/png;base64,"}
        assert EVIL in page.words


def test_nothing_comes_from_the_network(run):
    page = report(run.path)
    linked = [a[name] for _, a in page.tags for name in ("src", "href") if name in a]
    assert linked
    assert all(link.startswith("data:") for link in linked)
    assert "@import" not in page.source
    assert not any(tag in ("link", "iframe") for tag, _ in page.tags)


def test_several_runs_are_compared(tmp_path):
    raw = save(tmp_path / "version_0" / "spectral", history(weights="raw weights", fingerprint="a"))
    ema = save(tmp_path / "version_0" / "ema", history(delay=2.0, weights="EMA", fingerprint="a"))
    save(tmp_path / "version_0" / "old_1", history(weights="superseded"))
    save(tmp_path / "version_0" / "old_2", history(modes=2, weights="other"))
    both = report(raw.path, ema.path)
    table = {row[0]: row[1:] for row in both.tables["differences"]}
    assert table["weights"] == ["raw weights", "EMA"]
    times = [compare(SpectralHistory.load(files / "history.npz")).measured.time for files in (raw, ema)]
    name = next(name for name in table if name.startswith("emergence step"))
    expected = np.nanquantile(times[1] / times[0], (0.5, 0.1, 0.9))
    np.testing.assert_allclose(numbers(table[name][1])[:3], expected, rtol=6e-3)
    for index, files in enumerate((raw, ema)):
        stored = SpectralHistory.load(files / "history.npz")
        np.testing.assert_allclose(both.series("all-mode0", key=f"r{index}")["y"], stored.variance[:, 0], rtol=1e-5)
        assert table["law, falling modes"][index] == str(compare(stored).measured_law("falling"))
    assert {row[0] for row in both.tables["run1-laws"]} >= {"falling modes"}
    trackers = report(tmp_path).tables["differences"]  # the newest training, each of its trackers once
    assert sorted(trackers[1][1:]) == ["EMA", "other", "raw weights"]
    assert "other modes" in [cell for row in trackers for cell in row]


def test_pictures_are_those_of_the_files(run):
    pixels = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    assert "No pictures of the modes" in report(run.path).words
    write_arrays(run / "modes.npz", {"mode": np.array([0, 19]), "pixels": pixels})
    write_arrays(run / "samples.npz", {"step": np.array([7, 70]), "pixels": np.stack([pixels, pixels + 100])})
    page = report(run.path)
    images = [_decoded(a["src"]) for tag, a in page.tags if tag == "img"]
    np.testing.assert_array_equal(images[:2], pixels)
    np.testing.assert_array_equal(images[3], np.concatenate(list(pixels + 100), axis=1))
    assert "step 70" in page.words
    write_arrays(run / "modes.npz", {"mode": np.array([0, 99]), "pixels": pixels})
    assert "other modes than the history" in report(run.path).words


def _decoded(uri):
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_a_large_run_stays_small_and_fast(tmp_path):
    target = np.geomspace(10, 1e-4, 256)
    table = SpectralHistory({"target": target, "fixed_point": target, "levels": LEVELS})
    noise = np.random.default_rng(0)
    for step in np.arange(300) ** 2:
        share = np.exp(-step * target / 100)
        variance = (share + target * (1 - share)) * np.exp(0.05 * noise.standard_normal(256))
        gain = np.tile(share, (5, 1))
        table.append(step=step, variance=variance, standard_error=0.05 * variance, gain=gain)
    files = save(tmp_path / "spectral", table, table)
    began = time.perf_counter()
    file = write_report([str(files.path)])
    assert time.perf_counter() - began < 5
    assert file.stat().st_size < 3e6


def test_the_command_takes_runs_as_words(tmp_path, run, capsys):
    other = save(tmp_path / "other", history())
    main(["report", str(run.path), str(other.path), "--output", str(tmp_path / "out" / "both.html")])
    assert f"Report: {tmp_path / 'out' / 'both.html'}" in capsys.readouterr().out
    assert "differences" in Page(tmp_path / "out" / "both.html").tables
    main(["report", str(run.path)])
    assert (run / "report.html").exists()
    with pytest.raises(SystemExit, match="`runs` must lead to tracked runs"):
        main(["report", str(tmp_path / "nowhere")])
