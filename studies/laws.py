"""The laws of the stored trainings, each fitted once and kept beside the page: a fit takes half a second, the page has 350."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.emergence import EmergenceLaw, ModeEmergence, fit_law
from spectral_lightning.report import RunFiles
from studies.store import STORE

__all__ = ["FILE", "law", "write"]

FILE = STORE / "laws.json"
_DIGITS = 9  # of the logarithms that identify a fit

_kept: dict[str, EmergenceLaw] = {}
_used: set[str] = set()


def law(found: ModeEmergence, way: str, modes: NDArray[np.bool_] | None = None) -> EmergenceLaw:
    """The law of :meth:`ModeEmergence.law`, read if it was fitted before to the same modes by the same rules."""
    given = found.observed(way, modes)
    key = _key(given, found)
    if not _kept and FILE.exists():
        _kept.update({name: EmergenceLaw.from_dict(one) for name, one in json.loads(FILE.read_text()).items()})
    if key not in _kept:
        _kept[key] = fit_law(**given, rules=found.rules)
    _used.add(key)
    return _kept[key]


def write(file: Path = FILE) -> None:
    """Keep the laws that were asked for."""
    RunFiles(file.parent).write_json(file.name, {key: _kept[key].as_dict() for key in _used}, indent=0)


def _key(given: Mapping[str, Any], found: ModeEmergence) -> str:
    with np.errstate(divide="ignore"):
        arrays = [np.round(np.log(given[name]), _DIGITS) for name in ("variance", "time")]
    arrays += [given["side"].astype(np.float64), np.round(given["error"], _DIGITS)]
    text = json.dumps([asdict(found.rules), given["never"], *((array + 0.0).tolist() for array in arrays)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
