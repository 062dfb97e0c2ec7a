"""Tables of every step from the linear network to the MLP, and what they mean."""

from __future__ import annotations

import numpy as np

from spectral_lightning.diffusion import LogNormalNoise
from studies.ladder import Rungs, between, changes, common, difference, seeds, share
from studies.rungs import CRITERIA, LADDER, Rung
from studies.shared_layer import SharedLayer
from studies.tables import alpha, markdown

__all__ = ["agreeing", "text"]

_DRAWN = ("deep_linear", "mlp")  # trainings whose weights are drawn: another seed gives another exponent
_SMALL = 0.02
_SHARES = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9)

_ABOUT = (
    "From the linear network that lies on its theory to the MLP of experiment 1, one change at a time (each step keeps those "
    "above it), then single changes away from that MLP. Data, samples, 20-step sampler and latents are those of experiment "
    "1, seed 0; the linear steps on the expected loss take the moments of the same 10,000 samples. Which modes rise depends "
    "on the variance before training, and the law is not straight, so that two ranges give two exponents: beside the "
    "exponent over a step's own modes stands that over the modes common to all steps to the MLP. *Change* is against the "
    "step before, over these common modes (away from the MLP: against the MLP, over the modes that crossed in both); its "
    "interval is from a bootstrap over modes, and does not hold the scatter between seeds, which is below. Fits take 10 "
    "modes and 0.75 decades of variance: the modes that rise under EDM span about one. Where more than a twentieth of the "
    "modes falls back below the threshold, first passage is not learning, and no exponent is given."
)
_THEORIES = (
    "*Theory* is that of the step itself, put together from its settings and not limited to the steps trained: one layer per "
    "noise level, or, beyond Wang & Pehlevan, one layer that noise levels share, as much as they share in the MLP before "
    "training (cosine of its gradients at distant levels: 0.65). *Overlay* is the prediction drawn beside the training: the "
    "same theory where there is one (for Adam on the shared layer, that of plain descent), else one layer under the "
    "network's preconditioning, from the gain measured before training."
)
_MEAN = (
    "The linear steps lie on their theory to single precision, but for the mean of the 10,000 samples, which the theory takes "
    "as zero; with it the first one lies within 1e-4 where it is farthest off."
)


def text(found: Rungs) -> str:
    """The whole text."""
    parts = [_ABOUT]
    for criterion in CRITERIA:
        count = int(common(found, criterion).sum())
        parts += [
            f"**{criterion.capitalize()} threshold, rising modes**; {count} are common:",
            _table(found, criterion),
        ]
    parts += [
        _THEORIES,
        _reading(found),
        _optimizers(found),
        _scatter(found),
        _falling(found),
        "**The overlay's error**, rms of log variance over all modes outside the gray zone and all steps:",
        _errors(found),
        _MEAN,
        "**Sharing, in the theory alone**: exponents of the shared layer over the modes that rose in `shared`, by how much "
        "distant noise levels share:",
        _sharing(found),
    ]
    return "\n\n".join(parts)


def agreeing(found: Rungs, criterion: str) -> list[str]:
    """Linear steps whose exponent is not told from the MLP's, over the common modes."""
    apart = {step.key: between(found, "mlp", step.key, criterion) for step in LADDER[:-1]}
    return [key for key, one in apart.items() if one.determinable and not one.shown]


def _table(found: Rungs, criterion: str) -> str:
    moved, shared, rows = changes(found, criterion), common(found, criterion), []
    for key, rung in found.items():
        fit = rung.measured(criterion)
        cells = [
            alpha(fit),
            f"{fit.count} of {fit.total}",
            alpha(rung.theory(criterion)),
            alpha(rung.overlay(criterion)),
        ]
        change = [difference(moved[key]), str(moved[key].count)] if key in moved else ["-", "-"]
        rows.append([f"`{key}`", rung.step.label, *cells, alpha(rung.measured(criterion, modes=shared)), *change])
    columns = ["step", "what is changed", "alpha [95 %]", "crossed", "theory", "overlay", "alpha, common modes"]
    return markdown([*columns, "change [95 %]", "modes"], rows)


def _reading(found: Rungs) -> str:
    """Every step in a sentence, chosen by whether its change is shown."""
    said = []
    for criterion in CRITERIA:
        moved = {key: one for key, one in changes(found, criterion).items() if one.determinable}
        large = {key: one.value for key, one in moved.items() if one.shown and abs(one.value) >= _SMALL}
        raise_, lower = ([f"`{key}`" for key, value in large.items() if value * sign > 0] for sign in (1, -1))
        leave = [f"`{key}`" for key in moved if key not in large]
        same = [f"`{key}`" for key in agreeing(found, criterion)]
        said.append(
            f"{criterion.capitalize()} exponent of rising modes: raised by {_listed(raise_)}; lowered by {_listed(lower)}; by "
            f"less than {_SMALL}, or not shown to be changed, by {_listed(leave)}. "
            f"Linear steps whose exponent is not told from the MLP's: {_listed(same)}."
        )
    return f"**In short.** {' '.join(said)}"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _optimizers(found: Rungs) -> str:
    """Whether what Adam does to the linear network is what it does to the MLP."""
    said = []
    for criterion in CRITERIA:
        moved = changes(found, criterion)
        adam, sgd = moved["shared_adam"], moved["mlp_sgd"]
        if not (adam.determinable and sgd.determinable):
            continue
        # Taken away from the MLP, Adam's effect would be the opposite of what it was on the linear network.
        overlap = -sgd.high <= adam.high and -sgd.low >= adam.low
        same = "as much, within the intervals" if overlap else "not as much: effects do not add up"
        said.append(f"{criterion}, {difference(adam)} and, for descent in its place, {difference(sgd)}: {same}.")
    return f"Adam on the shared linear network, and plain descent with momentum on the MLP: {' '.join(said)}"


def _scatter(found: Rungs) -> str:
    """What another seed does, and which changes are larger than that."""
    said = []
    for criterion in CRITERIA:
        values, moved = seeds(found, criterion), changes(found, criterion)
        spread = float(np.ptp(values))
        shown = [key for key in moved if key.startswith(_DRAWN) and moved[key].shown]
        clear = [f"`{key}`" for key in shown if abs(moved[key].value) > spread]
        listed = ", ".join(f"{value:.2f}" for value in values)
        said.append(
            f"{criterion}: {listed} (range {spread:.2f}); of the changes among networks with random weights, larger than that: "
            f"{_listed(clear)}."
        )
    return (
        "**Between seeds.** Exponents of the MLP on the seeds of experiment 1, each with a spectrum, samples and weights of its "
        f"own, so that their range is more than weights alone would give. {' '.join(said)}"
    )


def _falling(found: Rungs) -> str:
    rows, reasons = [], set()
    for key, rung in found.items():
        for criterion in CRITERIA:
            fit = rung.measured(criterion, "falling")
            if fit.determinable:
                rows.append([f"`{key}`", criterion, alpha(fit), f"{fit.count} of {fit.total}"])
            else:
                reasons.add(fit.reason)
    other = f"Elsewhere not determinable: {'; '.join(sorted(reasons))}." if reasons else ""
    if not rows:
        return f"**Falling modes.** {other}"
    return f"**Falling modes.** {other}\n\n" + markdown(["step", "threshold", "alpha [95 %]", "crossed"], rows)


def _errors(found: Rungs) -> str:
    rows = []
    for key, rung in found.items():
        fit, about = rung.goodness, rung.stored.about["overlay"][rung.step.tracker]
        clock = "one factor fitted" if about["scale"] != 1.0 else "nothing fitted"
        theory = about["theory"].partition("(")[0]
        rows.append([f"`{key}`", theory, clock, f"{fit['rms']:.2g}", f"{fit['baseline']:.2g}", f"{share(rung):.2g}"])
    return markdown(["step", "theory", "clock", "rms", "nothing learnt", "ratio"], rows)


def _sharing(found: Rungs) -> str:
    rows = []
    for amount in _SHARES:
        theory = SharedLayer(2e-3, LogNormalNoise(-1.2, 1.2), share=amount)
        like = Rung(found["shared"].step, found["shared"].stored, theory)
        rows.append([f"{amount:g}", *(alpha(like.theory(criterion)) for criterion in CRITERIA)])
    return markdown(["share", *CRITERIA], rows)
