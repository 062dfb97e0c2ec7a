"""The page of results says what the stored tables say: it is made again, and its exponents computed by another route."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from studies import gaussian, page
from studies.running import ROOT, STORE

pytestmark = pytest.mark.slow  # every report is made once
STORED = sorted(STORE.glob("*/*/*.npz")) if STORE.is_dir() else []


@pytest.fixture(scope="module")
def found():
    return list(page.parts())


def test_every_number_of_the_page_is_that_of_the_stored_tables(found):
    assert page.page(found) == (STORE / "README.md").read_text()


def test_every_number_of_the_readme_is_that_of_the_stored_tables(found):
    whole = (ROOT / "README.md").read_text()
    assert page._MARKS[0] + "\n" + page.short_version(found) + "\n" + page._MARKS[1] in whole


def test_every_experiment_is_on_the_page_with_its_figure(found):
    assert [part.experiment.name for part in found] == list(page.EXPERIMENTS)
    for part in found:
        assert (STORE / f"{part.experiment.name}.png").stat().st_size > 10_000
        assert part.report.rows
        assert f"](#{part.anchor})" in page.page(found)


def test_what_is_stored_belongs_to_an_experiment():
    """Nothing is left over from a training that was renamed."""
    known = {(one.name, run.name) for one in page.EXPERIMENTS.values() for run in one.runs}
    assert {(file.parts[-3], file.parts[-2]) for file in STORED} == known


def test_no_place_of_one_machine_is_stored():
    for file in STORE.glob("*/*/*.*"):
        if file.suffix in (".yaml", ".json"):
            assert not re.search(r"(/home/|/root/|/tmp/|/work/)", file.read_text()), file


def passages(steps, variance, level, rising):
    """First passage by a loop: straight lines of log variance over log step, over the step itself before step one."""
    found = np.full(len(level), np.nan)
    for k in range(len(level)):
        beyond = variance[:, k] >= level[k] if rising[k] else variance[:, k] <= level[k]
        if not beyond.any():
            continue
        i = int(np.flatnonzero(beyond)[0])
        share = np.log(level[k] / variance[i - 1, k]) / np.log(variance[i, k] / variance[i - 1, k])
        if steps[i - 1] == 0:
            found[k] = share * steps[i]
        else:
            found[k] = steps[i - 1] * (steps[i] / steps[i - 1]) ** share
    return found


@pytest.mark.parametrize("criterion", ["geometric", "harmonic"])
@pytest.mark.parametrize("way", ["rising", "falling"])
@pytest.mark.parametrize("run", [run.name for run in gaussian.EXPERIMENT.runs])
def test_exponents_of_experiment_one_by_another_route(run, way, criterion, found):
    stored = page.load(STORE / "gaussian", [run])[run]
    with np.load(STORE / "gaussian" / run / "spectral.npz", allow_pickle=False) as file:
        arrays = dict(file)
    steps, variance = arrays["step"].astype(float), arrays["variance"]
    start, end, lam = variance[0], arrays["fixed_point"], arrays["target"]
    rising = end > start
    chosen = (np.maximum(start / end, end / start) > 2) & (rising == (way == "rising"))
    level = np.sqrt(start * end) if criterion == "geometric" else 2 / (1 / start + 1 / end)
    time = passages(steps, variance, level, rising)
    keep = chosen & np.isfinite(time)
    law = stored.compared(criterion).measured_law(way)
    assert (law.count, law.total) == (keep.sum(), chosen.sum())
    if not law.determinable:
        assert keep.sum() < 10 or np.ptp(np.log10(lam[keep])) < 1
        return
    line = stats.linregress(np.log(lam[keep]), np.log(time[keep]))
    half = line.stderr * stats.t.ppf(0.975, keep.sum() - 2)
    np.testing.assert_allclose(
        [law.exponent, law.low, law.high, law.r2],
        [-line.slope, -line.slope - half, -line.slope + half, line.rvalue**2],
        rtol=1e-9,
    )
    shown = f"{-line.slope:z.2f} [{-line.slope - half:z.2f}, {-line.slope + half:z.2f}]"
    assert shown in Path(STORE / "README.md").read_text()
