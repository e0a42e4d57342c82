"""Acquisition rules: scores of the examples of a pool, the highest of which is labelled next."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from jaxmeta.core import Array, Key
from jaxmeta.learners.metric._prototypical import squared_distances


class View(NamedTuple):
    """What is known about a pool before the next label.

    Attributes:
      probabilities_NW: the learner's class probabilities, float `[N, ways]`, among the classes with
        a label so far: 0 for other classes, and unrestricted before the first label.
      members_MNW: the same of each member of a committee; M is 0 without one.
      points_ND: where distances between examples are measured.
      labelled_N: bool, the examples with a label.
      candidates_N: bool, the examples that may be labelled next.
      known_W: bool, the classes with a label.
      used: float scalar, the fraction of the budget that is spent.
    """

    probabilities_NW: Array
    members_MNW: Array
    points_ND: Array
    labelled_N: Array
    candidates_N: Array
    known_W: Array
    used: Array


class Rule(Protocol):
    """`rule(key, view) -> scores`, float `[N]`; scores of examples with a label are ignored."""

    def __call__(self, key: Key, view: View, /) -> Array: ...


def chance(key: Key, view: View) -> Array:
    """Random scores: every candidate is equally likely, the baseline of all rules.

    See `acquisition`.
    """
    return jax.random.uniform(key, view.candidates_N.shape)


def entropy(key: Key, view: View) -> Array:
    """The entropy of the prediction, in nats.

        score_n = −Σ_w p_nw log p_nw

    Source: Settles 2009, "Active learning literature survey", section 3.1.

    >>> view = unlabelled_view(jnp.array([[0.5, 0.5], [1.0, 0.0]]))
    >>> entropy(jax.random.key(0), view).round(3).tolist()
    [0.6930000185966492, 0.0]
    """
    return entr(view.probabilities_NW).sum(axis=1)


def margin(key: Key, view: View) -> Array:
    """The negative difference of the two largest probabilities.

        score_n = p_n(2) − p_n(1)

    Source: Scheffer, Decomain, Wrobel 2001, "Active hidden Markov models for information
    extraction", section 3.

    >>> view = unlabelled_view(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
    >>> margin(jax.random.key(0), view).tolist()
    [-0.5, 0.0]
    """
    largest_N2 = jax.lax.top_k(view.probabilities_NW, 2)[0]
    return largest_N2[:, 1] - largest_N2[:, 0]


def k_centre(key: Key, view: View) -> Array:
    """Greedy k-centre: the squared distance to the nearest example with a label.

        score_n = min_{s labelled} ‖z_n − z_s‖²

    Before the first label it is −‖z_n − z̄‖², with the mean z̄ of the candidates, so that the first
    example is a central one.

    Source: Sener, Savarese 2018, "Active learning for convolutional neural networks: a core-set
    approach", algorithm 1.

    >>> view = unlabelled_view(jnp.array([[0.0], [1.0], [5.0]]))
    >>> view = view._replace(labelled_N=jnp.array([True, False, False]))
    >>> k_centre(jax.random.key(0), view).tolist()
    [0.0, 1.0, 25.0]
    """
    nearest_N = to_labelled(view)
    return jnp.where(view.labelled_N.any(), nearest_N, -to_mean(view))


def bald(key: Key, view: View) -> Array:
    """The mutual information between the label and the member of a committee, in nats.

        score_n = H(1/M Σ_m p_mn) − 1/M Σ_m H(p_mn)

    Raises:
      ValueError: the committee has fewer than two members.

    Source: Houlsby, Huszár, Ghahramani, Lengyel 2011, "Bayesian active learning for classification
    and preference learning", equation 2; with dropout, Gal, Islam, Ghahramani 2017, "Deep Bayesian
    active learning with image data".

    >>> agree, differ = jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([[0.5, 0.5], [0.0, 1.0]])
    >>> view = unlabelled_view(agree)._replace(members_MNW=jnp.stack([agree, differ]))
    >>> bald(jax.random.key(0), view).round(3).tolist()
    [0.0, 0.6930000185966492]
    """
    members_MNW = view.members_MNW
    if len(members_MNW) < 2:
        raise ValueError(
            f"bald: a committee of {len(members_MNW)}; give at least two members, or two samples "
            "of a stochastic learner."
        )
    return entr(members_MNW.mean(axis=0)).sum(axis=1) - entr(members_MNW).sum(axis=2).mean(axis=0)


def greedy(key: Key, view: View) -> Array:
    """The probability of the last class, such as that of being active: looks for examples of it.

        score_n = p_nW

    It is a rule for finding, and not made for a better classifier.

    Source: compared with other rules for molecules by Warmuth, Liao, Rätsch, Mathieson, Putta,
    Lemmen 2003, "Active learning with support vector machines in the drug discovery process".

    >>> view = unlabelled_view(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
    >>> greedy(jax.random.key(0), view).tolist()
    [0.75, 0.5]
    """
    return view.probabilities_NW[:, -1]


RULES: Mapping[str, Rule] = {
    "random": chance,
    "entropy": entropy,
    "margin": margin,
    "k-centre": k_centre,
    "greedy": greedy,
    "bald": bald,
}
"""The rules by name, the baseline first; `learned` makes another one."""


def highest(key: Key, scores_N: Array, candidates_N: Array) -> Array:
    """The candidate with the highest score, int32 scalar; ties are broken at random.

    A score of NaN is the lowest. Without any candidate it is an arbitrary example.

    >>> scores, candidates = jnp.array([9.0, 1.0, 3.0]), jnp.array([False, True, True])
    >>> int(highest(jax.random.key(0), scores, candidates))
    2
    """
    chex.assert_equal_shape([scores_N, candidates_N])
    scores_N = jnp.where(candidates_N & ~jnp.isnan(scores_N), scores_N, -jnp.inf)
    tied_N = candidates_N & (scores_N == scores_N.max())
    order_N = jnp.where(tied_N, jax.random.uniform(key, tied_N.shape), -1)
    return order_N.argmax().astype(jnp.int32)


def to_labelled(view: View) -> Array:
    """The squared distance to the nearest example with a label, `[N]`; 0 without any."""
    squares_NN = squared_distances(view.points_ND, view.points_ND)
    nearest_N = jnp.where(view.labelled_N[None], squares_NN, jnp.inf).min(axis=1)
    return jnp.where(view.labelled_N.any(), jnp.maximum(nearest_N, 0), 0)


def to_mean(view: View) -> Array:
    """The squared distance to the mean of the candidates, `[N]`."""
    weights_N = view.candidates_N.astype(view.points_ND.dtype)
    mean_D = weights_N @ view.points_ND / jnp.maximum(weights_N.sum(), 1)
    return jnp.square(view.points_ND - mean_D[None]).sum(axis=1)


def unlabelled_view(probabilities_NW: Array) -> View:
    """A view before the first label, with distances between the probabilities.

    >>> unlabelled_view(jnp.array([[0.5, 0.5]])).candidates_N.tolist()
    [True]
    """
    examples, ways = probabilities_NW.shape
    nothing = jnp.zeros((examples,), bool)
    return View(
        probabilities_NW,
        jnp.zeros((0, examples, ways)),
        probabilities_NW,
        nothing,
        ~nothing,
        jnp.zeros((ways,), bool),
        jnp.zeros(()),
    )
