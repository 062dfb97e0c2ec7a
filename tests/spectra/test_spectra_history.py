"""The table: its axes, its growth, and its ways to disk and back, whatever happens to the process that writes."""

import csv
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import FIELDS, HistoryDirectory, SpectralHistory

K = 3


def history(rows=4, metadata=None):
    rng = np.random.default_rng(0)
    static = {
        "target": [2.0, 1.0, 0.0],
        "fixed_point": [2.2, 1.1, 1e-300],
        "null": [False, False, True],
        "levels": [80.0, 1.0],
        "initial_gain": rng.random((2, K)),
    }
    table = SpectralHistory(
        static, {"sampler": "heun", "weights": "raw", "tags": [1, 2.5]} if metadata is None else metadata
    )
    for i in range(rows):
        table.append(
            step=10 * i,
            variance=rng.random(K) * 1e-3**i,
            standard_error=rng.random(K),
            mean_deviation=rng.standard_normal(K),
            alignment=rng.random(),
            cumulative_learning_rate=0.1 * i,
            seconds=1.5 * i,
            num_samples=64,
            non_finite=i,
            final=i == rows - 1,
        )
    return table


def assert_equal(a, b):
    assert a.names == b.names or set(a.names) == set(b.names)
    assert a.metadata == b.metadata
    assert len(a) == len(b)
    for name in a.names:
        assert a[name].dtype == b[name].dtype == np.dtype(FIELDS[name].dtype)
        assert a[name].tobytes() == b[name].tobytes(), name
        assert a[name].shape == b[name].shape


def test_arrays_have_the_declared_axes():
    table = history()
    sizes = {"step": 4, "mode": K, "level": 2}
    for name in table.names:
        assert table[name].shape == tuple(sizes[axis] for axis in FIELDS[name].axes)
    of_parts = ("group_", "linear_", "class_", "held_out_", "over_", "data_", "bins", "training_")
    optional = {"gain", "multiplicity", "wavelength", "sampler_bias", "slice", "measured"}
    optional |= {name for name in FIELDS if name.startswith(of_parts)}
    assert set(table.names) == set(FIELDS) - optional
    assert table.steps.tolist() == [0, 10, 20, 30]
    assert table.last_step == 30
    assert "variance" in table
    assert "gain" not in table


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"fixed_point": None}, "fixed_point"),
        ({"fixed_point": [1.0, 2.0]}, "fixed_point"),
        ({"target": [[1.0]]}, "target"),
        ({"target": 1.0}, "target"),
        ({"colour": [1.0]}, "colour"),
        ({"variance": [1.0]}, "variance"),
        ({"levels": [1.0], "initial_gain": [[1.0], [1.0]]}, "initial_gain"),
    ],
)
def test_static_fields_are_checked(change, field):
    static = {"target": [1.0], "fixed_point": [1.0], **change}
    with pytest.raises(ValueError, match=rf"[`']{field}[`']"):
        SpectralHistory({name: value for name, value in static.items() if value is not None})


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"step": 5}, "variance"),
        ({"variance": [1.0, 1.0]}, "step"),
        ({"step": 5, "variance": [1.0]}, "variance"),
        ({"step": [5], "variance": [1.0, 1.0]}, "step"),
        ({"step": 5, "variance": [1.0, 1.0], "seconds": 1.0}, "seconds"),
        ({"step": 4, "variance": [1.0, 1.0]}, "step"),
        ({"step": 3, "variance": [1.0, 1.0]}, "step"),
        ({"step": 5, "variance": [1.0, 1.0], "target": [1.0, 1.0]}, "target"),
        ({"step": 5, "variance": [1.0, 1.0], "loss": 1.0}, "loss"),
    ],
)
def test_rows_are_checked_and_a_refused_one_leaves_no_trace(row, field):
    table = SpectralHistory({"target": [1.0, 2.0], "fixed_point": [1.0, 2.0]})
    table.append(step=4, variance=[0.1, 0.1])
    with pytest.raises(ValueError, match=rf"[`']{field}[`']"):
        table.append(**row)
    assert table.steps.tolist() == [4]
    table.append(step=6, variance=[0.1, 0.1])
    assert table.steps.tolist() == [4, 6]


def test_a_row_is_a_copy_of_what_was_given():
    given, target = np.ones(2), np.ones(2)
    table = SpectralHistory({"target": target, "fixed_point": target})
    table.append(step=0, variance=given)
    given[:] = 7
    target[:] = 7
    assert table.variance.tolist() == [[1.0, 1.0]]
    assert table.target.tolist() == [1.0, 1.0]


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(KeyError, match=r"'gain' is not in this history, which holds target, .*variance"):
        history()["gain"]


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_save_and_load_are_bit_equal_and_hold_no_pickle(rows, tmp_path):
    table = history(rows)
    table.save(tmp_path / "history.npz")
    with np.load(tmp_path / "history.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
    assert_equal(SpectralHistory.load(tmp_path / "history.npz"), table)
    assert [p.name for p in tmp_path.iterdir()] == ["history.npz"]


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_state_dict_passes_through_a_weights_only_checkpoint_bit_equal(rows, tmp_path):
    table = history(rows)
    torch.save({"callbacks": {"tracker": table.state_dict()}}, tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)["callbacks"]["tracker"]
    again = SpectralHistory.from_state_dict(state)
    assert_equal(again, table)
    again.append(**{**history(1).row(0), "step": 1000})
    assert (len(again), len(table)) == (rows + 1, rows)


def test_not_a_number_and_extremes_survive(tmp_path):
    table = SpectralHistory({"target": [1.0, 0.0], "fixed_point": [1.0, 5e-324]})
    table.append(step=0, variance=[np.nan, np.inf], mean_deviation=[-0.0, 1e308])
    table.save(tmp_path / "h.npz")
    assert_equal(SpectralHistory.load(tmp_path / "h.npz"), table)


def test_a_newer_format_is_refused(tmp_path):
    arrays = history().header()
    arrays["__header__"] = np.array(json.dumps({"format": 2, "metadata": {}}))
    with pytest.raises(ValueError, match="format 2"):
        SpectralHistory.from_arrays(arrays)


def test_fields_of_a_later_version_of_the_same_format_are_passed_over():
    table = history()
    arrays = {**table.header(), **{n: table[n] for n in ("step", "variance")}, "something_new": np.ones(2)}
    again = SpectralHistory.from_arrays(arrays)
    assert "something_new" not in again.names
    np.testing.assert_array_equal(again.variance, table.variance)


def test_a_file_that_is_no_history_is_refused(tmp_path):
    for name, content in {"empty": b"", "text": b"step,mode\n1,2\n", "cut": b"PK\x03\x04 cut off"}.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    np.save(tmp_path / "array.npy", np.ones(2))
    np.savez(tmp_path / "objects.npz", __header__=np.array([{}], dtype=object))
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"`path`|allow_pickle=False"):
            SpectralHistory.load(path)


def test_drop_final_forgets_the_row_of_the_end_only():
    table = history(3)
    table.drop_final()
    assert table.steps.tolist() == [0, 10]
    table.drop_final()
    assert table.steps.tolist() == [0, 10]
    plain = SpectralHistory({"target": [1.0], "fixed_point": [1.0]})
    plain.drop_final()
    plain.append(step=0, variance=[1.0])
    plain.drop_final()
    assert len(plain) == 1


def test_csv_parses_back_equal(tmp_path):
    table = history()
    table.to_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * K
    assert list(lines[0]) == ["step", "mode", "target", "fixed_point", "variance", "standard_error", "mean_deviation"]
    for i, line in enumerate(lines):
        row, k = divmod(i, K)
        assert (int(line["step"]), int(line["mode"])) == (10 * row, k + 1)
        assert (float(line["target"]), float(line["fixed_point"])) == (table.target[k], table.fixed_point[k])
        for name in ("variance", "standard_error", "mean_deviation"):
            assert float(line[name]) == table[name][row, k]  # repr of a float is exact


# A growing history on disk.


def short(steps=()):
    table = SpectralHistory({"target": [2.0, 1.0], "fixed_point": [2.1, 1.1]}, {"sampler": "heun"})
    for step in steps:
        table.append(step=step, variance=[0.5 * step, 0.25], seconds=0.1 * step)
    return table


def files(directory):
    return sorted(path.name for path in directory.path.iterdir())


def test_one_file_per_row_and_none_rewritten(tmp_path):
    directory, table = HistoryDirectory(tmp_path / "deep" / "er"), short([0, 10])
    directory.begin(table)
    assert files(directory) == ["header.npz", "step-000000000000.npz", "step-000000000010.npz"]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.path.iterdir()}
    table.append(step=123, variance=[1.0, 1.0], seconds=1.0)
    directory.append(table.row(2))
    assert files(directory)[-1] == "step-000000000123.npz"
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    assert_equal(directory.load(), table)


def test_rows_come_in_the_order_of_steps(tmp_path):
    directory = HistoryDirectory(tmp_path)
    steps = [0, 9, 10, 99, 1_000, 10**11]
    with pytest.raises(FileNotFoundError, match=r"header\.npz"):
        directory.load()
    directory.begin(short())
    assert len(directory.load()) == 0
    for step in reversed(steps):
        directory.append(short([step]).row(0))
    assert_equal(directory.load(), short(steps))


@pytest.mark.parametrize("keep", [0, 10, 100])
def test_a_cut_off_part_is_passed_over_and_replaced(tmp_path, keep):
    directory = HistoryDirectory(tmp_path)
    directory.begin(short([0, 10]))
    whole = (tmp_path / "step-000000000010.npz").read_bytes()
    for name in ("step-000000000020.npz.part", "header.npz.part"):
        (tmp_path / name).write_bytes(whole[:keep])
    assert_equal(directory.load(), short([0, 10]))
    directory.append(short([20]).row(0))
    assert_equal(directory.load(), short([0, 10, 20]))
    assert "step-000000000020.npz.part" not in files(directory)


def test_a_row_damaged_by_a_power_cut_ends_the_history_with_a_warning(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    clock = iter([0.0, 1.0, 2.0, 9.0, 9.0, 10.0])
    monkeypatch.setattr("spectral_lightning.spectra.history.time.monotonic", lambda: next(clock))
    directory = HistoryDirectory(tmp_path)
    directory.begin(short())
    assert len(synced) == 1  # the header
    for step, count in ((0, 1), (10, 1), (20, 4), (30, 4)):  # at once, every few seconds
        directory.append(short([step]).row(0))
        assert len(synced) == count
    (tmp_path / "step-000000000020.npz").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        assert_equal(directory.load(), short([0, 10]))


def test_rows_after_the_checkpoint_are_kept_aside(tmp_path):
    directory = HistoryDirectory(tmp_path)
    directory.begin(short([0, 10, 20, 30]))
    later = (tmp_path / "step-000000000030.npz").read_bytes()
    directory.begin(short([0, 10]))
    assert_equal(directory.load(), short([0, 10]))
    assert [name for name in files(directory) if "superseded" in name] == [
        "step-000000000020.npz.superseded",
        "step-000000000030.npz.superseded",
    ]
    assert (tmp_path / "step-000000000030.npz.superseded").read_bytes() == later
    directory.append(short([30]).row(0))
    assert_equal(directory.load(), short([0, 10, 30]))


def append_for_ever(path):
    table = SpectralHistory({"target": np.ones(2000), "fixed_point": np.ones(2000)})
    directory = HistoryDirectory(path)
    directory.begin(table)
    for step in range(10**6):
        directory.append({"step": np.int64(step), "variance": np.full(2000, float(step))})


def test_a_killed_process_leaves_every_complete_row(tmp_path):
    # Forked, because a fresh interpreter would spend most of the test importing torch.
    process = multiprocessing.get_context("fork").Process(target=append_for_ever, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("step-*.npz"))) < 15 and time.monotonic() < deadline:
        time.sleep(0.003)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    loaded = HistoryDirectory(tmp_path).load()
    assert len(loaded) >= 15
    np.testing.assert_array_equal(loaded.steps, np.arange(len(loaded)))
    np.testing.assert_array_equal(loaded.variance, np.repeat(np.arange(len(loaded))[:, None], 2000, 1))
    assert len(list(tmp_path.glob("*.part"))) <= 1
