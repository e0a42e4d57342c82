"""Synthetic tasks: curves, sequences of bits, optimization problems, tables."""

from jaxmeta.data.synthetic import sequences
from jaxmeta.data.synthetic._sinusoids import sinusoid_curve, sinusoid_parameters, sinusoids
from jaxmeta.data.synthetic._switching import switches_of, switching_sinusoids
from jaxmeta.data.synthetic.gaussian_processes import gaussian_curves
from jaxmeta.data.synthetic.optimization import Family, classifiers, quadratics
from jaxmeta.data.synthetic.tables import synthetic_tables

__all__ = [
    "Family",
    "classifiers",
    "gaussian_curves",
    "quadratics",
    "sequences",
    "sinusoid_curve",
    "sinusoid_parameters",
    "sinusoids",
    "switches_of",
    "switching_sinusoids",
    "synthetic_tables",
]
