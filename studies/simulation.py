"""How well the law of emergence is estimated: bias and coverage on simulated measurements with a known exponent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from spectral_lightning.emergence import RULES, first_passage, monotone_passage, regress, stalled
from spectral_lightning.spectra.files import replacing
from studies.page import rendered
from studies.statistics import Array
from studies.store import STORE

__all__ = ["CASES", "FILE", "Case", "Outcome", "page", "simulated", "stored", "write"]

FILE = STORE / "simulation.json"
ALPHA, SEED, REPLICATES = 0.9, 2026, 2000
_MODES, _DECADES, _CHAINS, _AT_ONCE, _BENT = 60, 2.0, 8, 100, 400
_LEAST_BIAS, _WIDE = 0.02, (0.9, 1.0)
_UNKNOWN = -50.0  # a lower bound of log time that says nothing


@dataclass(frozen=True)
class Case:
    """How emergence times and measurements are drawn.

    Log times lie about the line with exponent 0.9 over 60 modes and two decades of variance; log variance goes from start to
    target along a logistic function of log step, whose middle is the threshold.
    """

    name: str
    censored: float = 0.0  # share of the modes that cross after the end
    scatter: float = 0.3  # standard deviation of log time about the line
    correlation: float = 0.0  # of neighbours in rank
    latents: int = 1024  # independent: relative error of a variance (2 / latents)^(1/2)
    per_decade: int = 6
    steepness: float = 2.0  # of the logistic function
    flat: int = 0  # further modes of less variance that start at 1 / 2.1 of their target
    uneven: float = 0.0  # relative change of the scatter from the middle to either end
    outlying: float = 0.0  # standard deviations by which one mode is late
    never: float = 0.0  # share of the modes that stop at 0.35 of their way
    after: float = 3.0  # end over the slowest emergence time, if nothing is censored
    bounds: tuple[float, float] = (0.93, 0.97)  # of the coverage that was asked for


CASES = (
    Case("nothing censored"),
    Case("10 % censored", 0.1),
    Case("33 % censored, scatter 0.16", 0.33, 0.16),
    Case("33 % censored", 0.33),
    Case("33 % censored, scatter 0.5", 0.33, 0.5),
    Case("60 % censored", 0.6),
    Case("128 latents, slow rise", latents=128, steepness=1.0),
    Case("the same at 30 records per decade", latents=128, steepness=1.0, per_decade=30),
    Case("30 flat modes at the edge of the gray zone, 128 latents", latents=128, flat=30, bounds=_WIDE),
    Case("neighbours correlated, 0.5", correlation=0.5),
    Case("neighbours correlated, 0.85", correlation=0.85, bounds=_WIDE),
    Case("33 % censored, correlated, 0.5", 0.33, correlation=0.5),
    Case("33 % censored, correlated, 0.85", 0.33, correlation=0.85, bounds=_WIDE),
    Case("scatter from 0.09 to 0.51", uneven=0.7),
    Case("one mode late by 4 standard deviations", outlying=4.0),
    Case("half of the modes never cross, all have stopped", never=0.5, after=30.0),
    Case("half of the modes never cross, some still move", never=0.5),
)


@dataclass(frozen=True)
class Outcome:
    """Bias of the exponent, its standard error and the coverage of its 95 % interval: of the law, and of least squares."""

    case: Case
    bias: float
    bias_error: float
    coverage: float
    curved: float  # share of the first 400 replicates judged curved
    plain_bias: float
    plain_coverage: float
    replicates: int

    @property
    def met(self) -> bool:
        """Whether the bias is below 0.02 and the coverage within the bounds of the page."""
        low, high = self.case.bounds
        return abs(self.bias) < _LEAST_BIAS and low <= round(self.coverage, 3) <= high


def simulated(replicates: int = REPLICATES, names: Sequence[str] = ()) -> Iterator[Outcome]:
    """The outcome of every case, or of those with these names."""
    for number, case in enumerate(CASES):
        if names and case.name not in names:
            continue
        found = [_outcome(case, min(_AT_ONCE, replicates - done), (SEED, number, done)) for done in
                 range(0, replicates, _AT_ONCE)]  # fmt: skip
        law, low, high, bent, plain, plain_low, plain_high = (np.concatenate(part) for part in zip(*found, strict=True))
        yield Outcome(
            case,
            float(law.mean()) - ALPHA,
            float(law.std() / len(law) ** 0.5),
            float(np.mean((low < ALPHA) & (high > ALPHA))),
            float(np.nanmean(bent)),
            float(np.nanmean(plain)) - ALPHA,
            float(np.mean((plain_low < ALPHA) & (plain_high > ALPHA))),
            len(law),
        )


def stored(file: Path = FILE) -> list[Outcome]:
    """The outcomes kept beside the page."""
    rows = json.loads(file.read_text())
    return [Outcome(**{**row, "case": Case(**{**row["case"], "bounds": tuple(row["case"]["bounds"])})}) for row in rows]


def page(found: Sequence[Outcome]) -> str:
    """The page of the simulation, in Markdown."""
    about = {"alpha": ALPHA, "modes": _MODES, "bias": _LEAST_BIAS, "after": CASES[-2].after}
    return rendered("simulation.md.j2", {"outcomes": found, **about})


def write(replicates: int = REPLICATES, names: Sequence[str] = (), store: Path = STORE) -> None:
    """Simulate (half an hour on one core), and write the outcomes and their page.

    Args:
        replicates: per row.
        names: rows to simulate; the others are kept. All by default.
        store: directory of the stored results.
    """
    file = store / FILE.name
    found = {one.case.name: one for one in stored(file)} if file.exists() else {}
    for outcome in simulated(replicates, names):
        print(f"{outcome.case.name}: bias {outcome.bias:+.3f}, coverage {outcome.coverage:.1%}", flush=True)
        found[outcome.case.name] = outcome
        rows = [found[case.name] for case in CASES if case.name in found]
        text = json.dumps([asdict(one) for one in rows], indent=1)
        for target, content in ((file, text + "\n"), (store / "simulation.md", page(rows))):
            with replacing(target) as part:
                part.write_text(content)


def _outcome(case: Case, count: int, seed: tuple[int, ...]) -> tuple[Array, ...]:
    """Of the law: exponents, ends of intervals, whether it is curved; of least squares: exponents, ends; ``[count]`` each."""
    rng = np.random.default_rng(seed)
    parts: list[Any] = [_measured(case, rng) for _ in range(count)]
    x, y, side, error, raw = (np.stack(column) for column in zip(*parts, strict=True))
    line = regress(x, y, side, error, chains=_CHAINS, seed=seed[-1])
    low, high = line.interval([0.0, -1.0])
    plain = np.array([_least_squares(a, b) for a, b in zip(x, raw, strict=True)]).T
    return -line.coefficients[:, 1], low, high, _curved(x, y, side, error, seed[-1]), *plain


def _curved(x: Array, y: Array, side: Array, error: Array, done: int) -> Array:
    """Whether each law is judged curved; NaN from the 400th replicate on, for it takes as long as the law itself."""
    if done >= _BENT:
        return np.full(len(x), np.nan)
    bent = regress(x, y, side, error, degree=2, chains=_CHAINS, seed=done)
    curvature = bent.coefficients[:, 2] / bent.draws[..., 2].std(0)
    ends = np.nanquantile(np.where(side == 0, x, np.nan), (0.1, 0.9), axis=1)
    return RULES.curved(curvature, 2 * bent.coefficients[:, 2] * (ends[1] - ends[0])).astype(np.float64)


def _measured(case: Case, rng: np.random.Generator) -> tuple[Array, ...]:
    """Log variance, log time or bound, side, error of the modes of one simulated run; log times of plain first passage."""
    x = np.linspace(-1, 1, _MODES) * _DECADES / 2 * np.log(10)
    step = x[1] - x[0]
    x = np.concatenate([x[0] - step * np.arange(case.flat, 0, -1), x])
    noise = rng.standard_normal(len(x))
    for k in range(1, len(x)):
        noise[k] = case.correlation * noise[k - 1] + (1 - case.correlation**2) ** 0.5 * noise[k]
    scatter = case.scatter * (1 + case.uneven * np.linspace(-1, 1, len(x)))
    log_time = np.log(1000) - ALPHA * x + scatter * noise
    log_time[len(x) // 4] += case.outlying * case.scatter
    own = log_time[case.flat :]
    end = np.exp(np.quantile(own, 1 - case.censored) + (0.0 if case.censored else np.log(case.after)))
    grid = np.unique(np.round(10 ** (np.arange(0, int(np.log10(end) * case.per_decade) + 1) / case.per_decade)))
    steps = np.concatenate([[0.0], grid[grid < end], [np.ceil(end)]])
    flat = np.arange(len(x)) < case.flat
    way = np.log(np.where(flat, 2.1, 30.0))
    with np.errstate(divide="ignore", over="ignore"):
        progress = 1 / (1 + np.exp(case.steepness * (log_time - np.log(steps)[:, None])))
    progress *= np.where(rng.random(len(x)) < case.never, 0.35, 1.0)
    target = np.exp(x)
    clean = target * np.exp((progress - 1) * way)
    relative = (2 / case.latents) ** 0.5
    table = clean * (1 + relative * rng.standard_normal(clean.shape)).clip(0.05)
    level, rising = target * np.exp(-way / 2), np.ones(len(x), np.int64)
    spread = relative * table
    found = monotone_passage(steps, table, level, rising, spread)
    crossed = np.isfinite(found.time) & ~found.bound
    early, dead = np.isfinite(found.time) & found.bound, stalled(steps, table, found, level, spread)
    side = np.select([crossed, early], [0.0, -1.0], 1.0)
    with np.errstate(invalid="ignore"):
        y = np.select([crossed, early, dead], [np.log(found.time), np.log(steps[1]), _UNKNOWN], np.log(steps[-1]))
        raw = np.log(np.maximum(first_passage(steps, table, level, rising), 0.5))
    return x, y, side, np.where(crossed, found.error, 0.0), raw


def _least_squares(x: Array, y: Array) -> tuple[float, float, float]:
    """Exponent and interval of the line through the modes that crossed."""
    known = np.isfinite(y)
    fit = stats.linregress(x[known], y[known])
    reach = fit.stderr * stats.t.ppf(0.975, known.sum() - 2)
    return -fit.slope, -fit.slope - reach, -fit.slope + reach
