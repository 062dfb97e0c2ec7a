"""Cost of generated variance per family: 3,072 modes x 300 times, against scalar routes on a sample of the cells.

Run ``python benchmarks/theory.py``. The scalar routes are far too slow for all cells: they are timed on a few, and the
time per cell is extrapolated to all of them.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.integrate import solve_ivp
from scipy.special import erf, expi

from spectral_lightning.theory import DeepLinear, FlowMatching, ModewiseDynamics, Objective, OneLayer, Preconditioning
from spectral_lightning.theory import SymmetricTwoLayer as TwoLayer

Cell = Callable[[float, float], float]

ETA, LOW, HIGH = 1e-3, 0.002, 80.0


def one_layer_cell(q: float, tau: float, lam: float) -> float:
    """The closed form of one layer, one cell at a time with SciPy."""
    t, a, b = 2 * ETA * tau, LOW**2, HIGH**2
    moving = (1 - q) * math.exp(-t * lam) * (expi(-t * a) - expi(-t * b)) - (
        expi(-t * (a + lam)) - expi(-t * (b + lam))
    )
    return b * (lam + a) / (lam + b) * math.exp(moving)


def two_layer_cell(q: float, tau: float, lam: float) -> float:
    """The closed form of two tied layers, one cell at a time."""
    e = float(np.exp(-8 * ETA * tau * lam))
    n = q + (1 - q) * e

    def phi(s: float) -> float:
        return (1 - q) * e / n * float(np.log(s)) + q / (2 * n) * float(np.log(lam * e + q * (1 - e) * (lam + s**2)))

    return HIGH**2 * math.exp(2 * (phi(LOW) - phi(HIGH)))


def flow_cell(q: float, tau: float, lam: float) -> float:
    """The closed form of one layer of flow matching, one cell at a time with SciPy."""
    t = 2 * ETA * tau
    a = math.sqrt(t / (1 + lam))
    start = q * math.sqrt(math.pi) / (1 + lam) / a * math.exp(-lam * a * a) * (erf(a) + erf(lam * a))
    return lam * math.exp(expi(-t) - expi(-t * lam) + start)


def ode_cell(theory: ModewiseDynamics, tau: float, lam: float) -> float:
    """The flow of one mode by ``solve_ivp``; the weight at every noise level by another, unless it is an exponential."""

    def weight(sigma: float) -> float:
        given = theory.objective.preconditioning
        skip, scale = given.c_skip(sigma), given.c_out(sigma) * given.c_in(sigma)
        goal = (lam / (lam + sigma**2) - skip) / scale
        rate = 2 * ETA * given.rate_factor(sigma) * (lam + sigma**2)
        if isinstance(theory, OneLayer):
            return float(skip + scale * goal * (1 - math.exp(-rate * tau)))
        assert isinstance(theory, DeepLinear)
        depth, factor = theory.depth, theory.depth * (theory.depth if theory.tied else 1)

        def growth(_: float, q: np.ndarray) -> np.ndarray:
            return -factor * rate * np.abs(q) ** (2 - 2 / depth) * (q - goal)

        return float(skip + scale * solve_ivp(growth, (0, tau), [theory.init], "LSODA", rtol=1e-9, atol=1e-12).y[0, -1])

    end = solve_ivp(
        lambda u, _: [1 - weight(math.exp(u))],
        (math.log(HIGH), math.log(LOW)),
        [math.log(HIGH)],
        "DOP853",
        rtol=1e-10,
        atol=1e-10,
    )
    return math.exp(2 * end.y[0, -1])


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def families(modes: int) -> list[tuple[str, ModewiseDynamics, Cell | None, int]]:
    """Name, theory, the scalar route (none: no solvable one beside it) and how many cells to time it on."""
    plain, edm = Objective(ETA), Objective(ETA, Preconditioning("edm", sigma_data=0.5))
    preconditioned = OneLayer(edm, 0.0)
    two, three = TwoLayer(edm, 0.1), DeepLinear(plain, 0.1, depth=3)
    return [
        ("one layer, closed", OneLayer(plain, 0.1), partial(one_layer_cell, 0.1), 3000),
        ("symmetric two layer, closed", TwoLayer(plain, 0.1), partial(two_layer_cell, 0.1), 3000),
        ("flow matching, closed", FlowMatching(plain, 0.1), partial(flow_cell, 0.1), 3000),
        ("one layer, EDM, quadrature", preconditioned, partial(ode_cell, preconditioned), 40),
        ("symmetric two layer, EDM, quadrature", two, partial(ode_cell, two), 3),
        ("deep linear L=3, quadrature", three, partial(ode_cell, three), 3),
    ]


def fixed(theory: ModewiseDynamics, variance: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Log of the generated variance by 200 Gauss-Legendre nodes for every mode and time, in chunks of equal memory."""
    x, weight = np.polynomial.legendre.leggauss(200)
    span = math.log(HIGH / LOW)
    sigma = np.exp(math.log(LOW) + span * (x + 1) / 2)[:, None, None]
    result = np.empty((len(times), len(variance)))
    for first in range(0, len(variance), 160):
        lam = variance[None, None, first : first + 160]
        for row in range(0, len(times), 8):
            psi = theory.gain(times[None, row : row + 8, None], sigma, lam, theory.start(sigma, lam))
            result[row : row + 8, first : first + 160] = 2 * math.log(LOW) + span * np.tensordot(
                weight, psi, axes=(0, 0)
            )
    return result


def refinement(console: Console) -> None:
    """What refining the quadrature costs and corrects, per family: times in turn, errors of 200 fixed nodes."""
    variance, times = np.geomspace(1e-4, 1e2, 128), np.geomspace(1.0, 1e6, 32)
    table = Table(
        "depth, Q", "preconditioning", "200 nodes [s]", "refined [s]", "ratio", "largest error of 200 nodes", "median"
    )
    for depth, q in ((1, 0.1), (2, 0.1), (2, 1e-6), (3, 1e-3), (5, 1e-6)):
        for kind in ("none", "edm", "variance_preserving", "velocity", "x0", "flow"):
            theory = DeepLinear(Objective(ETA, Preconditioning(kind)), q, depth)
            curves, spent = theory.on(variance), {}
            curves.generated_variance(times[:2])
            for _ in range(3):
                for name, call in (
                    ("fixed", lambda theory=theory: fixed(theory, variance, times)),
                    ("refined", lambda curves=curves: np.log(curves.generated_variance(times))),
                ):
                    spent.setdefault(name, []).append(seconds(call))
            error = np.abs(fixed(theory, variance, times) - np.log(curves.generated_variance(times)))
            plain, refined = (float(np.median(spent[name])) for name in ("fixed", "refined"))
            table.add_row(
                f"{depth}, {q:g}", kind, f"{plain:.2f}", f"{refined:.2f}", f"{refined / plain:.2f}",
                f"{error.max():.0e}", f"{np.median(error):.0e}",
            )  # fmt: skip
    console.print(table)


def main() -> None:
    """Time every family, check its values on the sample, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", type=int, default=3072)
    parser.add_argument("--times", type=int, default=300)
    given = parser.parse_args()
    variance, times = np.geomspace(1e-4, 1e2, given.modes), np.geomspace(1.0, 1e6, given.times)
    rng = np.random.default_rng(0)
    table = Table(
        "family", "all cells [s]", "scalar route, extrapolated [s]", "from cells", "ratio", "difference",
        "half the modes", "half the times", "peak, 1/8 of the times [MB]",
        title=f"{given.modes} modes x {given.times} times",
    )  # fmt: skip
    for name, theory, cell, sample in families(given.modes):
        theory.on(variance[:2]).generated_variance(times[:2])  # builds the tables that all calls share
        began = time.perf_counter()
        result = theory.on(variance).generated_variance(times)
        spent = time.perf_counter() - began
        rows, columns = rng.integers(given.times, size=sample), rng.integers(given.modes, size=sample)
        pairs = [(float(times[i]), float(variance[k])) for i, k in zip(rows, columns, strict=True)]
        values: list[float] = []
        scalar = seconds(lambda cell=cell, pairs=pairs, values=values: values.extend(cell(*pair) for pair in pairs))
        difference = np.abs(np.array(values) / result[rows, columns] - 1).max()
        total = scalar / sample * given.modes * given.times
        fewer_modes = seconds(lambda theory=theory: theory.on(variance[::2]).generated_variance(times))
        fewer_times = seconds(lambda theory=theory: theory.on(variance).generated_variance(times[::2]))
        tracemalloc.start()
        theory.on(variance).generated_variance(times[::8])
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        table.add_row(
            name, f"{spent:.2f}", f"{total:.3g}", str(sample), f"{total / spent:.3g}x", f"{difference:.1e}",
            f"{fewer_modes / spent:.2f}", f"{fewer_times / spent:.2f}", f"{peak:.0f}",
        )  # fmt: skip
    console = Console(width=160)
    console.print(table)
    refinement(console)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    console.print(
        f"Largest resident size of the process {resident:.0f} MB; the result itself takes {result.nbytes / 1e6:.0f} MB."
    )


if __name__ == "__main__":
    main()
