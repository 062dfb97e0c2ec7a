"""Natural patches: five networks on the same data and budget, seen in three bases at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.definition import Experiment, Report, Row, Run, trackers
from studies.estimate import Estimate
from studies.local_limit import circular_modes, local_limit
from studies.ordering import RULE, WAYS, Ordering, Orders, judged, rate_ratio, until_end
from studies.ordering_figure import ordering_figure
from studies.ordering_tables import grouped, order_table, progress_table, theory_exponents
from studies.results import Results, Stored
from studies.tables import markdown
from studies.tokens import TokenOrder, token_order, token_table

__all__ = ["EXPERIMENT"]

Array = NDArray[np.float64]

_STEPS, _BATCH, _SAMPLES, _HEUN_STEPS, _PER_DECADE, _SIDE, _KERNEL = 800, 128, 256, 12, 10, 16, 3
_TOKEN = 2  # pixels along the side of a token of the transformer
_PATCHES = {"class_path": "spectral_lightning.spectra.PatchComponents", "init_args": {"size": 5, "boundary": "valid"}}
_SAMPLER = {"num_steps": _HEUN_STEPS}
_CONV_RATE = 3.0e-3  # ten times the networks': a kernel of few weights would not get there in these steps

_NETWORKS = {
    "mlp": "MLP",
    "full_width_conv": "full-width conv.",
    "local_conv": "local conv.",
    "unet": "U-Net",
    "dit": "DiT",
}
_CONTROLS = {
    "linear_descent": "linear, descent",
    "full_width_descent": "full-width conv., descent",
    "local_descent": "local conv., descent",
}
_BASES = {"spectral": "eigenmodes", "fourier": "Fourier modes", "patch": "patch components"}

_ORDER, _TOGETHER = "by variance", "together"
_WIDE = ("Shared weights alone keep the order of variance (full-width convolution)", "as fully connected", _ORDER)
_LOCAL = ("A local convolution learns modes together", "alpha about 0", _TOGETHER)

# Run, basis, claim of Wang & Pehlevan 2025, their figure, the order it means (None where they claim nothing), and whether
# it is a headline. Their propositions on convolutions speak of Fourier modes.
_CLAIMS: tuple[tuple[str, str, tuple[str, str, str | None], bool], ...] = (
    (
        "mlp",
        "spectral",
        (
            "A fully connected network learns modes in the order of variance",
            "0.48 rising, 0.35 falling (FFHQ32)",
            _ORDER,
        ),
        True,
    ),
    ("full_width_conv", "fourier", _WIDE, True),
    ("full_width_descent", "fourier", _WIDE, False),
    ("local_conv", "fourier", _LOCAL, True),
    ("local_descent", "fourier", _LOCAL, False),
    ("unet", "spectral", ("A convolutional U-Net learns modes together", "alpha about 0 (FFHQ32)", _TOGETHER), True),
    ("dit", "spectral", ("A diffusion transformer: no claim", "-", None), True),
)


def _run(name: str, config: str, changes: Mapping[str, Any], num_samples: int = _SAMPLES) -> Run:
    """A configuration with the budget that all share."""
    budget = {
        "trainer.max_steps": _STEPS,
        "trainer.limit_val_batches": 0,
        "data.init_args.batch_size": _BATCH,
        "trainer.callbacks": trackers(
            num_samples, _PER_DECADE, _HEUN_STEPS, bases={"fourier": "fourier", "patch": _PATCHES}
        ),
    }
    return Run(name, f"natural_patches_{config}", {**budget, **changes})


def _network(name: str) -> Run:
    if not name.endswith("_conv"):
        return _run(name, name, {})
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": _CONV_RATE}}
    return _run(name, name, {"model.init_args.sampler": _SAMPLER, "model.init_args.optimizer": optimizer})


def _descent(name: str, denoiser: str, rate: float, **given: Any) -> Run:
    """A network of the theory under gradient descent of the expected loss, at nearly the largest rate that converges."""
    model: Mapping[str, Any] = {
        "class_path": f"spectral_lightning.models.{denoiser}",
        "init_args": {
            "shape": [1, _SIDE, _SIDE],
            "sampler": _SAMPLER,
            "objective": "exact",
            "preconditioning": {"kind": "edm", "sigma_data": 1.0},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": rate}},
            **given,
        },
    }
    # Twice the dimension in latents measures a linear denoiser without sampling error; batches only count the steps.
    return _run(f"{name}_descent", "full_width_conv", {"model": model, "data.init_args.batch_size": 4}, 512)


def report(results: Results) -> Report:
    """In which order the five networks and the three controls learnt the modes."""
    orders, limit = Orders(results), _limit(results)
    panels = {(basis, run): orders(run, basis) for basis in _BASES for run in _NETWORKS}
    rows = [
        *(_claim(orders, *case) for case in _CLAIMS),
        _token_row(orders),
        *_limit_rows(results, limit),
        _rate_row(results),
    ]
    return Report(rows, _text(orders, limit), ordering_figure(panels, _BASES, _NETWORKS))


def _claim(orders: Orders, run: str, basis: str, said: tuple[str, str, str | None], headline: bool) -> Row:
    (claim, published, expected), found = said, orders(run, basis)
    verdict = judged(expected, found) if expected else _verdicts(found)
    how = ", gradient descent" if run in _CONTROLS else ""
    theory = theory_exponents(orders.results[run], basis)
    return Row(f"{claim}; {_BASES[basis]}{how}", published, _measured(found), theory, verdict, headline)


def _measured(found: list[Ordering]) -> str:
    return "; ".join(one.summary for one in found)


def _verdicts(found: list[Ordering]) -> str:
    return "; ".join(f"{one.way} {one.verdict}" for one in found if one.law.determinable) or "not determinable"


def _token_orders(orders: Orders) -> dict[str, TokenOrder]:
    waves = circular_modes(orders.results["dit"].history("fourier"))
    return {run: token_order(orders(run, "fourier")[1], waves, _SIDE, _TOKEN) for run in _NETWORKS}


def _token_row(orders: Orders) -> Row:
    found = _token_orders(orders)["dit"]
    measured = f"rank correlation with it {found.constant}, with variance {found.variance}"
    more = found.constant.low > max(abs(found.variance.low), abs(found.variance.high))
    claim = "A diffusion transformer learns late what is constant within its tokens; falling Fourier modes"
    return Row(claim, "-", measured, "-", "measured here: " + ("tokens before variance" if more else "undecided"))


def _limit(results: Results) -> Array:
    return local_limit(results["local_conv"].history("fourier"), _SIDE, _KERNEL)


def _limited(one: Stored, limit: Array) -> list[Ordering]:
    """Order of the Fourier modes of a local convolution, with thresholds towards the limit of its kernel."""
    history = one.history("fourier")
    found = until_end(history, limit)
    return [Ordering(found, way, history.last_step or 0) for way in WAYS]


def _limit_rows(results: Results, limit: Array) -> list[Row]:
    claim, published, expected = _LOCAL
    rows = []
    for run, how in (("local_conv", "Adam"), ("local_descent", "gradient descent")):
        found = _limited(results[run], limit)
        text = f"{claim}; Fourier modes, threshold towards the limit of the kernel, {how}"
        rows.append(Row(text, published, _measured(found), "-", judged(expected, found)))
    return rows


def _rates(results: Results) -> tuple[Estimate, Estimate]:
    """By how much sharing weights speeds learning up, measured and of the theory."""
    linear, full = results["linear_descent"], results["full_width_descent"]
    return rate_ratio(linear, full, "fourier"), rate_ratio(linear, full, "fourier", predicted=True)


def _rate_row(results: Results) -> Row:
    count = _SIDE**2
    measured, theory = _rates(results)
    agrees = abs(measured.value / count - 1) < 0.1
    claim = "Sharing weights between N pixels multiplies the rate by N (gradient descent; median over Fourier modes)"
    verdict = "confirmed" if agrees else "not confirmed"
    return Row(claim, f"N = {count}", measured.cell, theory.cell, f"{verdict}: {measured.value / count:.2f} N")


def _text(orders: Orders, limit: Array) -> str:
    results = orders.results
    everything = {**_NETWORKS, **_CONTROLS}
    return "\n\n".join(
        [
            f"All networks saw the same patches of {_SIDE} x {_SIDE} pixels: {_STEPS} batches of {_BATCH}, Adam. MLP, "
            "U-Net and DiT share weights between noise levels and draw them from EDM's density; the convolutions are one "
            f"linear kernel per level of the {_HEUN_STEPS}-step sampler (local: {_KERNEL} x {_KERNEL}), their levels are "
            f"drawn alike, and their learning rate is {_CONV_RATE:g} in place of 0.0003, because at the latter they end "
            "far from where they go. The controls descend the expected loss of the same linear networks by its gradient: "
            "what the theory describes.",
            _counts(orders),
            f"{RULE} The rank correlation is Spearman's between step and variance, -1 in the order of variance; modes "
            "that wait are tied last in it. The spread is the 90th over the 10th percentile of the step.",
            order_table(orders, _NETWORKS, _BASES),
            _findings(orders),
            _tokens(orders),
            "The controls:",
            order_table(orders, _CONTROLS, _BASES),
            progress_table(results, everything),
            _limits(results, limit),
            _sharing(results),
        ]
    )


def _counts(orders: Orders) -> str:
    found = orders("unet")
    rising, falling = (one.law.total for one in found)
    gray = len(found[0].found.variance) - rising - falling
    return (
        f"The patches have unit variance per pixel, and so have the samples before training, along every mode: of "
        f"{rising + falling + gray} eigenmodes {rising} then have to rise and {falling} to fall, the others begin within a "
        "factor of two of their end. What these data decide is the order of the falling ones."
    )


def _findings(orders: Orders) -> str:
    lines = []
    for basis, name in _BASES.items():
        found = {called: orders(run, basis)[1] for run, called in _NETWORKS.items()}
        lines.append(f"- Falling {name}: {grouped(found)}.")
    same = [
        called for run, called in _NETWORKS.items() if len({orders(run, basis)[1].verdict for basis in _BASES}) == 1
    ]
    agree = f"The three bases agree for {', '.join(same)}." if same else "For no network do the three bases agree."
    return "\n".join([*lines, "", agree])


def _tokens(orders: Orders) -> str:
    found = {_NETWORKS[run]: one for run, one in _token_orders(orders).items()}
    return (
        f"The transformer cuts a patch into tokens of {_TOKEN} x {_TOKEN} pixels. What varies within a token it can learn "
        "from that token alone, what is constant there takes the others. Spearman's correlation of the step of emergence "
        "with either, over the falling Fourier modes that crossed, for it and for the networks without tokens; waves that "
        f"are constant within tokens are long ones of large variance, hence the partial correlations:\n\n{token_table(found)}"
    )


def _limits(results: Results, limit: Array) -> str:
    rows = []
    for run in ("local_conv", "local_descent"):
        for basis, name in _BASES.items():
            history = results[run].history(basis)
            own = until_end(history)
            ends = [("its last measurement", [Ordering(own, way, history.last_step or 0) for way in WAYS])]
            if basis == "fourier":
                ends.append(("the limit of its kernel", _limited(results[run], limit)))
            for end, found in ends:
                called = {**_NETWORKS, **_CONTROLS}[run]
                rows += [[called, f"{one.way} {name}", end, *one.cells] for one in found if one.law.total]
    columns = ["network", "modes", "end", "crossed", "alpha", "rank correlation", "spread", "order"]
    reach = _reach(results["local_conv"], limit)
    return (
        f"A kernel of {_KERNEL} x {_KERNEL} pixels cannot hold the data's spectrum. {reach} Against where the network "
        "itself ends instead (a run that still moves has not ended, so that its last measurement makes modes look late "
        f"together; modes that end within a factor of two of their start are left out):\n\n{markdown(columns, rows)}"
    )


def _reach(one: Stored, limit: Array) -> str:
    """How many thresholds the limit of the kernel lies beyond."""
    found = one.compared("geometric", "fourier").measured
    parts = []
    for way, sign in zip(WAYS, (1, -1), strict=True):
        chosen = found.eligible(way)
        able = int((sign * (limit - found.threshold) >= 0)[chosen].sum())
        parts.append(f"{able} of {int(chosen.sum())} {way} ones")
    return (
        f"Trained for ever it would bring {' and '.join(parts)} of the Fourier modes past the geometric threshold that "
        f"refers to the data, by the closed form; the others can never cross and are no slow learners."
    )


def _sharing(results: Results) -> str:
    measured, theory = _rates(results)
    count = len(circular_modes(results["linear_descent"].history("fourier")))
    return (
        "What sharing weights does to the rate: learning rate times step of emergence of the linear layer over that of "
        f"the full-width convolution, mode by mode over the {count} Fourier modes, has the median {measured.cell}, the theory's "
        f"tables {theory.cell}; N is {_SIDE**2}. The eigenmodes of the patches are not Fourier modes, because patches are not "
        "stationary and have edges; that is what keeps the ratio from being N for every mode."
    )


EXPERIMENT = Experiment(
    name="patches",
    title="Patches of photographs, five networks",
    question="On the same patches and budget, which networks learn the modes in the order of their variance, and which "
    "learn them together?",
    runs=(
        *(_network(name) for name in ("unet", "dit", "mlp", "full_width_conv", "local_conv")),
        _descent("linear", "LinearDenoiser", 5.0e-3),
        _descent("full_width", "FullWidthConvDenoiser", 2.0e-5, bias="shared"),
        _descent("local", "LocalConvDenoiser", 4.5e-4, bias="shared", kernel_size=_KERNEL),
    ),
    report=report,
)
