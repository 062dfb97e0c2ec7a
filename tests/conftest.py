"""Settings of every test: few threads, and no silent skip where a missing dependency is a failure."""

import functools
import importlib.metadata
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

# Before torch or NumPy is imported: the tests must not fight for the cores, and results must not depend on how many.
THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")
# Trainings write and remove thousands of small files, with fsync: in memory, if there are two GiB.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**31:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
# Every Trainer asks for the entry points of all packages installed, which do not change.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)
STRICT_SKIPS = "SPECTRAL_LIGHTNING_STRICT_SKIPS"


def _fail_if_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip for a missing module into a failure where the environment asks for it."""
    if os.environ.get(STRICT_SKIPS) != "1" or not report.skipped or not isinstance(report.longrepr, tuple):
        return
    reason = report.longrepr[2]
    if any(phrase in reason.lower() for phrase in ("could not import", "no module named")):
        report.outcome = "failed"
        report.longrepr = f"a declared dependency is missing: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_missing(report)
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a long one begun last would leave the other processes without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
