"""The table that a measurement and a prediction both are: variance of the generated samples, step by mode."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectral_lightning.spectra.bases.observables import NULL_SHARE
from spectral_lightning.spectra.files import read_arrays, replacing, write_arrays

__all__ = ["FIELDS", "Field", "SpectralHistory"]

FloatArray = NDArray[np.float64]
Row = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Field:
    """One named array: its axes, type and meaning. Fields with a ``step`` axis grow by a row per measurement."""

    axes: tuple[str, ...]
    dtype: type
    meaning: str


FIELDS: dict[str, Field] = {
    "target": Field(("mode",), np.float64, "variance of the data along each mode (lambda)"),
    "null": Field(("mode",), np.bool_, "modes along which the data have no variance"),
    "multiplicity": Field(("mode",), np.int64, "observations of each mode in one sample"),
    "fixed_point": Field(("mode",), np.float64, "variance the sampler makes of the exact linear denoiser"),
    "levels": Field(("level",), np.float64, "noise levels of the sampler's evaluations"),
    "initial_gain": Field(("level", "mode"), np.float64, "gain of the denoiser before training"),
    "group_target": Field(("group", "mode"), np.float64, "variance of the data of each group"),
    "group_fixed_point": Field(("group", "mode"), np.float64, "what the sampler makes of it, mode by mode"),
    "group_share": Field(("group",), np.float64, "share of the data in each group"),
    "step": Field(("step",), np.int64, "optimizer updates"),
    "variance": Field(("step", "mode"), np.float64, "variance of the generated samples along each mode"),
    "standard_error": Field(("step", "mode"), np.float64, "standard error of the variance"),
    "mean_deviation": Field(
        ("step", "mode"), np.float64, "mean of the samples minus mean of the data, along each mode"
    ),
    "gain": Field(("step", "level", "mode"), np.float64, "gain of the denoiser"),
    "group_variance": Field(("step", "group", "mode"), np.float64, "variance of the samples of each group"),
    "group_standard_error": Field(("step", "group", "mode"), np.float64, "standard error of that variance"),
    "group_mean_deviation": Field(
        ("step", "group", "mode"), np.float64, "mean of a group's samples minus mean of all data, along each mode"
    ),
    "group_count": Field(("step", "group"), np.int64, "samples in each group"),
    "alignment": Field(("step",), np.float64, "squared diagonal over squares of the samples' covariance on the modes"),
    "cumulative_learning_rate": Field(("step",), np.float64, "sum of the learning rates of the updates so far"),
    "seconds": Field(("step",), np.float64, "wall time since training began, without that of measuring"),
    "num_samples": Field(("step",), np.int64, "samples in the measurement"),
    "non_finite": Field(("step",), np.int64, "samples left out because they held NaN or infinity"),
    "final": Field(("step",), np.bool_, "measured only because training ended"),
}


class SpectralHistory:
    """Named arrays with declared axes (:data:`FIELDS`), and metadata of plain values.

    ``history["variance"]`` is ``[step, mode]``; the names that every history has are attributes too.

    Args:
        static: arrays without a ``step`` axis; at least ``target`` and ``fixed_point``.
        metadata: plain, JSON-compatible values: what was measured, with which sampler, basis and weights.

    Raises:
        ValueError: for an unknown field, a missing one, or a shape that does not fit the others.

    Example:
        >>> history = SpectralHistory({"target": [1.0, 0.1], "fixed_point": [1.1, 0.1]})
        >>> history.append(step=0, variance=[0.2, 0.2])
        >>> history.append(step=10, variance=[0.9, 0.15])
        >>> history.steps.tolist(), history.variance[:, 0].tolist()
        ([0, 10], [0.2, 0.9])
    """

    FORMAT = 1

    def __init__(self, static: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._size: dict[str, int] = {}
        self.static: Row = {name: self._checked(name, value, growing=False) for name, value in static.items()}
        missing = {"target", "fixed_point"} - set(self.static)
        if missing:
            raise ValueError(f"`static` must hold 'target' and 'fixed_point', got none of {sorted(missing)}.")
        self._rows: list[Row] = []

    def _checked(self, name: str, value: Any, *, growing: bool) -> NDArray[Any]:
        field = FIELDS.get(name)
        if field is None or ("step" in field.axes) is not growing:
            fitting = [n for n, f in FIELDS.items() if ("step" in f.axes) is growing]
            raise ValueError(
                f"`{name}` is not a {'row' if growing else 'static'} field. Those are {', '.join(fitting)}."
            )
        array: NDArray[Any] = np.asarray(value, dtype=field.dtype).copy()  # the caller may go on using its own
        axes = [axis for axis in field.axes if axis != "step"]
        if array.ndim != len(axes):
            raise ValueError(f"`{name}` must have axes {axes}, got shape {array.shape}.")
        for axis, size in zip(axes, array.shape, strict=True):
            if self._size.setdefault(axis, size) != size:
                raise ValueError(f"`{name}` must have {self._size[axis]} along axis {axis!r}, got {size}.")
        return array

    def append(self, **row: Any) -> None:
        """Add one measurement: ``step``, ``variance`` and whatever else is known of it.

        Raises:
            ValueError: if the step is not above the last one, or the fields differ from those of the rows before.
        """
        checked = {name: self._checked(name, value, growing=True) for name, value in row.items()}
        if not {"step", "variance"} <= set(checked):
            raise ValueError(f"A row must hold 'step' and 'variance', got {sorted(checked)}.")
        if self._rows and set(checked) != set(self._rows[-1]):
            raise ValueError(
                f"A row must hold the fields {sorted(self._rows[-1])} of the rows before, got {sorted(checked)}."
            )
        if self._rows and checked["step"] <= self._rows[-1]["step"]:
            raise ValueError(f"`step` must be above the last one, {self._rows[-1]['step']}, got {checked['step']}.")
        self._rows.append(checked)

    def drop_final(self) -> None:
        """Forget a last row that was measured only because training ended; a longer run would not have it."""
        while self._rows and bool(self._rows[-1].get("final", np.False_)):
            self._rows.pop()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return name in self.static or bool(self._rows and name in self._rows[-1])

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self.static:
            return self.static[name]
        if name not in FIELDS or (self._rows and name not in self._rows[-1]):
            raise KeyError(f"{name!r} is not in this history, which holds {', '.join(self.names)}.")
        if not self._rows:
            shape = [0 if axis == "step" else self._size.get(axis, 0) for axis in FIELDS[name].axes]
            return np.empty(shape, FIELDS[name].dtype)
        return np.stack([row[name] for row in self._rows])

    @property
    def names(self) -> list[str]:
        """The fields this history holds."""
        return [*self.static, *(self._rows[-1] if self._rows else ())]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Optimizer updates at each measurement, ``[step]``."""
        return self["step"]

    @property
    def variance(self) -> FloatArray:
        """Variance of the generated samples, ``[step, mode]``."""
        return self["variance"]

    @property
    def target(self) -> FloatArray:
        """Variance of the data, ``[mode]``."""
        return self["target"]

    @property
    def fixed_point(self) -> FloatArray:
        """What the sampler makes of the exact denoiser, ``[mode]``; thresholds refer to it."""
        return self["fixed_point"]

    @property
    def bias(self) -> FloatArray:
        """Relative error of the sampler itself, ``fixed_point / target - 1``, ``[mode]``; NaN for null modes."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.target > 0, self.fixed_point / self.target - 1, np.nan)

    @property
    def null_variance(self) -> float:
        """Largest variance of the data's null modes, 0 where there are none: a mode with no more than this is one."""
        null = self["null"] if "null" in self else np.zeros(len(self.target), np.bool_)
        return float(self.target[null].max()) if null.any() else 0.0

    @property
    def last_step(self) -> int | None:
        """Step of the last measurement, None before the first."""
        return int(self._rows[-1]["step"]) if self._rows else None

    def row(self, index: int) -> Row:
        """One measurement."""
        return self._rows[index]

    @property
    def groups(self) -> list[str]:
        """Names of the groups, none where samples were measured together only."""
        return [str(name) for name in self.metadata.get("groups", ())]

    def group(self, name: str) -> SpectralHistory:
        """The history of one group by itself, of the same kind: everything that reads a history reads it.

        Raises:
            KeyError: if there is no such group.
        """
        if name not in self.groups:
            raise KeyError(f"{name!r} is no group of this history, which has {self.groups or 'none'}.")
        g = self.groups.index(name)
        kept: Row = {n: self.static[n] for n in ("levels", "initial_gain", "multiplicity") if n in self.static}
        target = self["group_target"][g]
        null = target <= NULL_SHARE * self.target.max()
        static = {**kept, "target": target, "fixed_point": self["group_fixed_point"][g], "null": null}
        history = SpectralHistory(static, {**self.metadata, "groups": [], "group": name})
        shared = [n for n in ("cumulative_learning_rate", "seconds", "non_finite", "final") if n in self]
        for row in self._rows:
            own = {n: row[f"group_{n}"][g] for n in ("variance", "standard_error", "mean_deviation")}
            history.append(step=row["step"], num_samples=row["group_count"][g], **own, **{n: row[n] for n in shared})
        return history

    # Storage: npz without pickle on disk, tensors in checkpoints, CSV for everybody else.

    def header(self) -> Row:
        """Static arrays and metadata as arrays, what a file starts with."""
        document = json.dumps({"format": self.FORMAT, "metadata": self.metadata}, sort_keys=True)
        return {"__header__": np.array(document), **self.static}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> SpectralHistory:
        """Rebuild a history from :meth:`header` and stacked row fields."""
        document = json.loads(str(arrays["__header__"]))
        if document["format"] > cls.FORMAT:
            raise ValueError(
                f"The history has format {document['format']}, newer than {cls.FORMAT}. Upgrade the package."
            )
        fields = {name: array for name, array in arrays.items() if name in FIELDS}
        static = {name: array for name, array in fields.items() if "step" not in FIELDS[name].axes}
        history = cls(static, document["metadata"])
        growing = {name: array for name, array in fields.items() if name not in static}
        for index in range(len(growing.get("step", ()))):
            history.append(**{name: array[index] for name, array in growing.items()})
        return history

    def _arrays(self) -> Row:
        return {**self.header(), **{name: self[name] for name in (self._rows[-1] if self._rows else ())}}

    def save(self, path: str | Path) -> None:
        """Write the whole history to one npz file, atomically and without pickle."""
        write_arrays(Path(path), self._arrays())

    @classmethod
    def load(cls, path: str | Path) -> SpectralHistory:
        """Read a file that :meth:`save` wrote.

        Raises:
            ValueError: if the file is not such a history, or of a newer format.
        """
        arrays = read_arrays(Path(path))
        if "__header__" not in arrays:
            raise ValueError(f"`path` must be a file that SpectralHistory.save wrote, got {str(path)!r}.")
        return cls.from_arrays(arrays)

    def to_csv(self, path: str | Path) -> None:
        """Write one line per step and mode: step, mode (1 the largest), target, fixed point and what was measured."""
        columns = [n for n in ("variance", "standard_error", "mean_deviation") if n in self]
        with replacing(Path(path)) as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "mode", "target", "fixed_point", *columns])
            for row in self._rows:
                tables = [row[name] for name in columns]
                for k in range(len(self.target)):
                    values = [self.target[k], self.fixed_point[k], *(table[k] for table in tables)]
                    writer.writerow([int(row["step"]), k + 1, *(repr(float(v)) for v in values)])

    def state_dict(self) -> dict[str, Any]:
        """The whole history as tensors and one string, which load under ``weights_only``."""
        arrays = self._arrays()
        header = str(arrays.pop("__header__"))
        return {"header": header, **{name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> SpectralHistory:
        """Rebuild what :meth:`state_dict` gave."""
        arrays: Row = {name: value.cpu().numpy() for name, value in state.items() if name != "header"}
        return cls.from_arrays({"__header__": np.array(state["header"]), **arrays})
