"""Memories: every equation of their addressing by hand, and machines over sequences."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmeta import Batch, Model, cross_entropy
from jaxmeta.learners.memory import (
    Machine,
    addressing,
    dnc,
    lstm_machine,
    mann,
    memory_classifier,
    ntm,
    run,
)

KEY = jax.random.key(0)
MACHINES = {
    "lstm": partial(lstm_machine, 12, outputs=2, layers=2),
    "ntm": partial(ntm, outputs=2, slots=6, slot_width=4, controller_width=12, read_heads=2),
    "ntm-feedforward": partial(
        ntm, outputs=2, slots=6, slot_width=4, controller_width=12, controller="feedforward"
    ),
    "dnc": partial(dnc, outputs=2, slots=6, slot_width=4, controller_width=12, read_heads=2),
    "mann": partial(mann, outputs=2, slots=6, slot_width=4, controller_width=12, read_heads=2),
}
machines = pytest.mark.parametrize("name", MACHINES)

assert_close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


# --- addressing, by hand ------------------------------------------------------------------


def test_by_content():
    memory = jnp.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    cosines = np.array([0.8, 1.0, 0.0])
    assert_close(addressing.cosine(memory, jnp.array([0.0, 5.0])), cosines)
    expected = np.exp(2 * cosines) / np.exp(2 * cosines).sum()
    assert_close(addressing.by_content(memory, jnp.array([0.0, 5.0]), jnp.array(2.0)), expected)


def test_shifts_go_round():
    weights = jnp.array([0.7, 0.3, 0.0, 0.0])
    back, stay, on = 0.2, 0.5, 0.3
    expected = [
        back * 0.3 + stay * 0.7 + on * 0.0,
        back * 0.0 + stay * 0.3 + on * 0.7,
        back * 0.0 + stay * 0.0 + on * 0.3,
        back * 0.7,
    ]
    assert_close(addressing.shifted(weights, jnp.array([back, stay, on])), expected)


def test_sharpening_and_interpolation():
    found = addressing.sharpened(jnp.array([0.6, 0.3, 0.1]), jnp.asarray(3.0))
    cubes = np.array([0.6, 0.3, 0.1]) ** 3
    np.testing.assert_allclose(found, cubes / cubes.sum(), rtol=1e-3)
    mixed = addressing.interpolated(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]), jnp.array(0.8))
    assert_close(mixed, [0.9, 0.1])


def test_writing_erases_and_adds():
    memory = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    weights, erase = jnp.array([[0.5, 0.0], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    add = jnp.array([[10.0, 20.0], [1.0, 2.0]])
    found = addressing.written(memory, weights[:1], erase[:1], add[:1])
    assert_close(found, [[0.5 + 5.0, 2.0 + 10.0], [3.0, 4.0]])
    # What one head adds, the other does not erase, whichever comes first.
    both = [[0.5 + 5.0 + 1.0, 0.0 + 10.0 + 2.0], [3.0, 4.0]]
    assert_close(addressing.written(memory, weights, erase, add), both)
    assert_close(addressing.written(memory, weights[::-1], erase[::-1], add[::-1]), both)


def test_usage():
    """Row 0 was half full and is written fully, row 1 is read by a head that frees it by half."""
    found = addressing.usage(
        jnp.array([0.5, 0.8, 0.2]),
        jnp.array([1.0, 0.0, 0.5]),
        jnp.array([[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]]),
        jnp.array([0.5, 1.0]),
    )
    assert_close(found, [1.0, 0.8 * (1 - 0.5) * (1 - 0.5), 0.2 + 0.5 - 0.1])


def test_allocation_goes_to_the_rows_least_in_use():
    found = addressing.allocation(jnp.array([0.9, 0.1, 0.5]))
    np.testing.assert_allclose(found, [0.1 * 0.1 * 0.5, 0.9, 0.5 * 0.1], atol=1e-4)
    assert_close(addressing.allocation(jnp.ones(3)), np.zeros(3))  # full: nowhere
    grads = jax.grad(lambda u: addressing.allocation(u)[1])(jnp.array([0.9, 0.1, 0.5]))
    assert np.isfinite(grads).all()
    assert grads[1] < -0.9


def test_links_are_the_order_of_writes():
    """Rows 2, 0, 1 are written one after the other; read on from 2, and back from 1."""
    links, precedence = jnp.zeros((3, 3)), jnp.zeros(3)
    for row in (2, 0, 1):
        links, precedence = addressing.linked(links, precedence, jax.nn.one_hot(row, 3))
    assert_close(precedence, [0, 1, 0])
    assert_close(links, [[0, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert_close(links @ jax.nn.one_hot(2, 3), jax.nn.one_hot(0, 3))
    assert_close(links.T @ jax.nn.one_hot(1, 3), jax.nn.one_hot(0, 3))
    # Written half: the old link fades by half, the new one has half the weight.
    links, precedence = addressing.linked(links, precedence, jnp.array([0.5, 0.0, 0.0]))
    assert_close(links, [[0, 0.5, 0.5], [0.5, 0, 0], [0, 0, 0]])
    assert_close(precedence, [0.5, 0.5, 0])


def test_least_used_rows():
    assert addressing.least_used(jnp.array([3.0, 1.0, 2.0, 1.0]), 1).tolist() == [0, 1, 0, 0]
    assert addressing.least_used(jnp.array([3.0, 1.0, 2.0, 1.0]), 3).tolist() == [0, 1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_weightings_are_weightings(seed):
    random = np.random.default_rng(seed)
    memory, key = random.normal(size=(5, 3)), random.normal(size=3)
    content = addressing.by_content(jnp.asarray(memory), jnp.asarray(key), jnp.array(3.0))
    moved = addressing.shifted(content, jax.nn.softmax(jnp.asarray(random.normal(size=3))))
    sharp = addressing.sharpened(moved, jnp.asarray(1 + abs(random.normal())))
    for weights in (content, moved, sharp):
        assert_close(weights.sum(), 1)
        assert (weights >= 0).all()
    in_use = jnp.asarray(random.uniform(size=5))
    free = addressing.allocation(in_use)
    assert (free >= 0).all()
    assert free.sum() <= 1 + 1e-5
    after = addressing.usage(in_use, content, sharp[None], jnp.asarray(random.uniform(size=1)))
    assert (after >= 0).all() and (after <= 1 + 1e-6).all()


# --- machines -----------------------------------------------------------------------------


def made(name, steps=7):
    machine = MACHINES[name]()
    inputs = jax.random.normal(KEY, (steps, 3))
    return machine, machine.init(KEY, inputs[0]), inputs


@pytest.mark.full
@machines
def test_a_sequence_in_two_parts_is_the_sequence(name):
    machine, params, inputs = made(name)

    @jax.jit
    def in_two_parts(params, inputs):
        middle, first, _ = run(machine, params, inputs[:3])
        end, second, _ = run(machine, params, inputs[3:], middle)
        return end, jnp.concatenate([first, second])

    *whole, seen = jax.device_get(jax.jit(partial(run, machine))(params, inputs))
    chex.assert_trees_all_close(in_two_parts(params, inputs), tuple(whole), rtol=1e-5, atol=1e-6)
    for kind, weights in seen.items():
        assert (weights >= 0).all()
        # MANN writes to as many of the least used rows as it has heads.
        most = {"usage": 6, "write": 2 if name == "mann" else 1}.get(kind, 1)
        assert (weights.sum(axis=-1) <= most + 1e-5).all()


@pytest.mark.full
@machines
def test_the_past_is_remembered_and_the_future_is_not_known(name):
    machine, params, inputs = made(name)
    outputs = run(machine, params, inputs)[1]
    changed = run(machine, params, inputs.at[3].add(1.0))[1]
    assert_close(changed[:3], outputs[:3])
    assert not np.allclose(changed[3], outputs[3], atol=1e-6)
    if name != "ntm-feedforward":  # that one remembers through its memory alone, here by little
        assert not np.allclose(changed[5], outputs[5], atol=1e-6)


@machines
@pytest.mark.slow
def test_gradients_go_through_all_steps(name, x64):
    machine, params, inputs = made(name, 4)
    params, inputs = jax.tree.map(lambda leaf: leaf.astype(float), (params, inputs))
    loss = jax.jit(lambda params: jnp.square(run(machine, params, inputs)[1]).sum())
    grads = jax.jit(jax.grad(loss))(params)
    random = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape), params)
    at = lambda step: loss(jax.tree.map(lambda p, d: p + step * d, params, direction))  # noqa: E731
    expected = (at(1e-6) - at(-1e-6)) / 2e-6
    products = jax.tree.map(lambda g, d: np.vdot(g, d), grads, direction)
    assert sum(jax.tree.leaves(products)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.full
@machines
def test_padding_behind_the_end_changes_nothing(name):
    machine, params, inputs = made(name)
    longer = jnp.concatenate([inputs, jnp.zeros((4, 3))])
    assert_close(run(machine, params, longer)[1][:7], run(machine, params, inputs)[1])


def test_a_classifier_is_told_each_label_one_step_late():
    """A machine that keeps what it hears, and says it."""
    room = 5
    recorder = Machine(
        init=lambda key, inputs: (),
        start=lambda params: jnp.zeros((room, 1 + 3)),
        step=lambda params, heard, inputs: (
            jnp.concatenate([heard[1:], inputs[None]]),
            jnp.concatenate([heard[1:], inputs[None]]),
            {},
        ),
    )
    identity = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
    learner = memory_classifier(recorder, identity, cross_entropy, ways=3)
    mask = jnp.array([True, True, False, True])
    support = Batch(jnp.array([[5.0], [6.0], [9.0], [7.0]]), jnp.array([2, 0, 1, 1]), mask)
    params = {"encoder": {}, "machine": ()}
    heard = learner.predict(learner.adapt(KEY, params, support), jnp.array([[8.0], [4.0]]))
    known = [[0, 0, 0, 0], [5, 0, 0, 0], [6, 0, 0, 1], [7, 1, 0, 0]]  # 9 is not real
    assert heard[0].tolist() == [*known, [8, 0, 1, 0]]
    assert heard[1].tolist() == [*known, [4, 0, 1, 0]]  # not after 8: each query by itself


@pytest.mark.parametrize(
    "build",
    [
        lambda: ntm(0),
        lambda: ntm(2, controller="gru"),  # pyright: ignore
        lambda: dnc(2, read_heads=0),
        lambda: mann(2, slots=0),
        lambda: mann(2, decay=1.5),
        lambda: lstm_machine(0, 2),
    ],
)
def test_errors_name_the_value(build):
    with pytest.raises(ValueError, match="at least 1 each"):
        build()


def test_every_head_of_mann_has_a_row_to_write():
    with pytest.raises(ValueError, match="4 heads write to only 3 rows"):
        mann(2, slots=3, read_heads=4)


def test_a_strength_is_positive():
    with pytest.raises(ValueError, match="strength 0; give a positive number"):
        mann(2, strength=0)
