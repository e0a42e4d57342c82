"""Abstaining from unsure predictions, for `predict --abstain-below`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmeta import files
from jaxmeta.calibration import risk_coverage
from jaxmeta.recipes.folders import RESULTS
from jaxmeta.recipes.predictions import CURVE, THRESHOLDS


def measured(
    below: float,
    probabilities: np.ndarray,
    predicted: Sequence[str],
    truth: Sequence[str | None],
) -> dict[str, Any]:
    """The coverage at a threshold; with true classes also the risk, and the curve of both.

    Args:
      below: the threshold.
      probabilities: of the predicted classes, float `[queries]`.
      predicted: the predicted class of each query.
      truth: its true class, None where it is unknown; may be empty if all are.

    >>> found = measured(0.7, np.array([0.9, 0.8, 0.6]), ["a", "b", "b"], ["a", "a", None])
    >>> round(found["coverage"], 4), found["risk"], found["risk_coverage"]["risk"][0]
    (0.6667, 0.5, 0.5)
    >>> found["judged"]  # queries that are answered, and whose class is known
    2
    """
    answered = probabilities >= below
    found: dict[str, Any] = {"abstain_below": below, "coverage": float(answered.mean())}
    truth = truth or [None] * len(predicted)
    known = np.array([own is not None for own in truth])
    if not known.any():
        return found
    correct = np.array([name == own for name, own in zip(predicted, truth, strict=True)])
    judged = correct[answered & known]
    found["risk"] = float(1 - judged.mean()) if len(judged) else None
    found["judged"] = len(judged)
    coverage, risk = risk_coverage(
        jnp.asarray(probabilities[known]),
        jnp.asarray(correct[known]),
        thresholds=jnp.array(THRESHOLDS),
    )
    risk = jnp.where(coverage > 0, risk, jnp.nan)  # undefined where no query is answered
    curve = {"thresholds": list(THRESHOLDS), "coverage": coverage.tolist(), "risk": risk.tolist()}
    return {**found, CURVE: curve}


def lines(run: Path, found: dict[str, Any], queries: int) -> list[str]:
    """What was measured, and what the run's own test says of the threshold.

    >>> found = {"abstain_below": 0.7, "coverage": 1.0, "risk": 0.5, "judged": 2}
    >>> lines(Path("no-run"), found, 4)[0]
    '4 of 4 queries are answered; of the 2 with a known class 50.0 % are wrong.'
    """
    below, coverage = found["abstain_below"], found["coverage"]
    answered, errors = round(coverage * queries), ""
    if (risk := found.get("risk")) is not None:
        judged = found["judged"]
        among = ", of which" if judged == answered else f"; of the {judged} with a known class"
        errors = f"{among} {100 * risk:.1f} % are wrong"
    told = [f"{answered} of {queries} queries are answered{errors}."]
    path = run / RESULTS
    curve = files.read_json(path).get(CURVE) if path.is_file() else None
    if curve is None:
        return [*told, "The run's results have no risk-coverage curve; evaluate RUN measures one."]
    place = max(number for number, own in enumerate(curve["thresholds"]) if own <= below)
    threshold, covered, wrong = (curve[name][place] for name in ("thresholds", "coverage", "risk"))
    wrong = "" if wrong is None else f", of which {100 * wrong:.1f} % are wrong"
    return [
        *told,
        f"On the run's own test, abstaining below {threshold:g} answers {100 * covered:.1f} % of "
        f"the queries{wrong}.",
    ]
