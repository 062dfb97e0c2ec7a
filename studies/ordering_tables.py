"""Tables of orders of emergence, and how far each training got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studies.ordering import WAYS, Ordering, Orders, distance, for_good, returned, unfinished
from studies.results import Results, Stored
from studies.tables import alpha, duration, interval, markdown

__all__ = ["grouped", "order_table", "progress_table", "theory_exponents"]

_PROGRESS = (
    "How far each got, in eigenmodes. A mode still moves if it made a tenth of its whole way in the second half of the "
    "steps. It went back if a measurement finds it back over its threshold after it had crossed: these are the weights of "
    "single steps, not averages, and the first passage of such a mode is early. The last passage, since when every "
    "measurement finds it past, is late instead; an exponent that is about the same for both does not hang on that."
)


def order_table(orders: Orders, runs: Mapping[str, str], bases: Mapping[str, str]) -> str:
    """Every run, basis and direction: exponents under both thresholds, rank correlation, spread and verdicts.

    Args:
        orders: of all runs.
        runs: those to list, and what to call them.
        bases: trackers, and what to call them.
    """
    columns = ["network", "modes", "crossed", "alpha, geometric", "alpha, harmonic", "rank correlation", "spread"]
    rows = []
    for run, name in runs.items():
        for basis, basis_name in bases.items():
            pairs = [orders(run, basis, criterion) for criterion in ("geometric", "harmonic")]
            for geometric, harmonic in zip(*pairs, strict=True):
                if geometric.law.total:
                    rows.append([name, f"{geometric.way} {basis_name}", *_cells(geometric, harmonic)])
    return markdown([*columns, "order", "harmonic"], rows)


def _cells(geometric: Ordering, harmonic: Ordering) -> list[str]:
    return [
        geometric.crossed,
        alpha(geometric.law),
        f"{alpha(harmonic.law)}{'' if harmonic.crossed == geometric.crossed else f' ({harmonic.crossed})'}",
        geometric.rank.cell,
        geometric.spread.cell,
        geometric.verdict,
        harmonic.verdict,
    ]


def progress_table(results: Results, runs: Mapping[str, str]) -> str:
    """How far each run got, how far the theory's overlay lies off, and what it took."""
    columns = ["network", "rms log distance to the end of learning: before", "after", "still moving", "went back"]
    columns += ["alpha of the last passage, falling", "overlay's rms log error (if nothing were learnt): eigenmodes"]
    rows = [[name, *_progress(results[run])] for run, name in runs.items()]
    return f"{_PROGRESS}\n\n{markdown([*columns, 'Fourier modes', 'wall time'], rows)}"


def _progress(one: Stored) -> list[str]:
    history, found = one.history(), one.compared().measured
    far = [f"{distance(history, row):.2f}" for row in (0, -1)]
    shares = [f"{share:.0%}" for share in (unfinished(history, found), returned(history, found))]
    last = for_good(history, found).law("falling")
    fits = [one.goodness(basis) for basis in ("spectral", "fourier")]
    errors = [f"{fit['rms']:.3g} ({fit['baseline']:.2f})" for fit in fits]
    return [*far, *shares, f"{alpha(last)} ({last.count} of {last.total})", *errors, duration(one.about["seconds"])]


def grouped(found: Mapping[str, Ordering]) -> str:
    """Names by verdict, as a clause: ``by variance: MLP, DiT; together: U-Net``."""
    said: dict[str, list[str]] = {}
    for name, one in found.items():
        said.setdefault(one.verdict, []).append(name)
    return "; ".join(f"*{verdict}*: {', '.join(names)}" for verdict, names in said.items())


def theory_exponents(one: Stored, basis: str = "spectral", ways: Sequence[str] = WAYS) -> str:
    """The overlay's exponents over the modes that crossed in both, under the geometric threshold."""
    compared = one.compared("geometric", basis)
    laws = [(way, compared.predicted_law(way)) for way in ways]
    said = [f"{way}: {interval(law.exponent, law.low, law.high)}" for way, law in laws if law and law.determinable]
    return "; ".join(said) or "not determinable"
