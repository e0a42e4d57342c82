"""Machines with a memory, step by step in NumPy beside the papers' equations."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxmeta.learners.memory import dnc, mann, ntm, run

SLOTS, SLOT, HIDDEN, HEADS, OUTPUTS, STEPS = 5, 3, 4, 2, 2, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log(1 + np.exp(x))


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum()


def cosine(memory, key):
    squares = (memory**2).sum(axis=1) * (key**2).sum()
    return memory @ key / np.sqrt(squares + 1e-12)  # an empty row is like nothing


def parts(vector, *sizes):
    """The vector cut into parts of these sizes."""
    assert sum(sizes) == len(vector)
    return np.split(vector, np.cumsum(sizes)[:-1])


class Controller:
    """Hears the input and the last reads; what it signals, and what it says with new reads."""

    def __init__(self, params, lstm):
        self.params, self.lstm = params, lstm
        self.state = np.zeros(HIDDEN), np.zeros(HIDDEN)

    def signals(self, inputs, reads):
        heard = np.concatenate([inputs, reads.ravel()])
        self.state = self.lstm(self.params["controller"]["cell"], self.state, heard)
        interface = self.params["interface"]
        return self.state[1] @ interface["kernel"] + interface["bias"]

    def says(self, reads):
        output = self.params["output"]
        return np.concatenate([self.state[1], reads.ravel()]) @ output["kernel"] + output["bias"]


def ntm_by_hand(controller, inputs):
    """Graves et al. 2014, equations 2 to 9; two heads that read and two that write."""
    params = controller.params
    memory, reads = params["memory"], np.tanh(params["reads"])
    places = [softmax(place) for place in params["places"]]
    for x in inputs:
        signals = controller.signals(x, reads)
        moves, writes = parts(signals, 2 * HEADS * (SLOT + 6), 2 * HEADS * SLOT)
        for head, of_head in enumerate(np.split(moves, 2 * HEADS)):
            key, (strength,), (gate,), shifts, (exponent,) = parts(of_head, SLOT, 1, 1, 3, 1)
            content = softmax(softplus(strength) * cosine(memory, key))
            mixed = sigmoid(gate) * content + (1 - sigmoid(gate)) * places[head]
            back, stay, on = softmax(shifts)
            turned = [
                back * mixed[(i + 1) % SLOTS] + stay * mixed[i] + on * mixed[i - 1]
                for i in range(SLOTS)
            ]
            sharp = np.array(turned) ** (1 + softplus(exponent))
            places[head] = sharp / sharp.sum()
        erased, added = memory, 0
        for weights, of_head in zip(places[HEADS:], np.split(writes, HEADS), strict=True):
            erase, add = parts(of_head, SLOT, SLOT)
            erased = erased * (1 - np.outer(weights, sigmoid(erase)))
            added = added + np.outer(weights, add)
        memory = erased + added
        reads = np.stack([weights @ memory for weights in places[:HEADS]])
        yield controller.says(reads)


def dnc_by_hand(controller, inputs):
    """Graves et al. 2016, Methods."""
    memory, usage, precedence = np.zeros((SLOTS, SLOT)), np.zeros(SLOTS), np.zeros(SLOTS)
    links, write = np.zeros((SLOTS, SLOTS)), np.zeros(SLOTS)
    read, reads = np.zeros((HEADS, SLOTS)), np.zeros((HEADS, SLOT))
    for x in inputs:
        sizes = (HEADS * SLOT, HEADS, SLOT, 1, SLOT, SLOT, HEADS, 1, 1, 3 * HEADS)
        keys, strengths, key, strength, erase, add, free, allocate, gate, modes = parts(
            controller.signals(x, reads), *sizes
        )
        retention = np.ones(SLOTS)
        for head in range(HEADS):
            retention *= 1 - sigmoid(free[head]) * read[head]
        usage = (usage + write - usage * write) * retention
        allocation, in_use = np.zeros(SLOTS), 1.0
        for row in np.argsort(usage, kind="stable"):
            allocation[row] = (1 - usage[row]) * in_use
            in_use *= usage[row]
        content = softmax((1 + softplus(strength)) * cosine(memory, key))
        share = sigmoid(allocate)
        write = sigmoid(gate) * (share * allocation + (1 - share) * content)
        memory = memory * (1 - np.outer(write, sigmoid(erase))) + np.outer(write, add)
        for i in range(SLOTS):
            for j in range(SLOTS):
                kept = (1 - write[i] - write[j]) * links[i, j]
                links[i, j] = 0 if i == j else kept + write[i] * precedence[j]
        precedence = (1 - write.sum()) * precedence + write
        for head in range(HEADS):
            own_key, mode = keys.reshape(HEADS, -1)[head], softmax(modes.reshape(HEADS, 3)[head])
            content = softmax((1 + softplus(strengths[head])) * cosine(memory, own_key))
            backward, forward = links.T @ read[head], links @ read[head]
            read[head] = mode[0] * backward + mode[1] * content + mode[2] * forward
            reads[head] = read[head] @ memory
        yield controller.says(reads)


def mann_by_hand(controller, inputs, strength=None):
    """Santoro et al. 2016, equations 2 to 8; with a strength, one more signal of each head."""
    memory, usage = np.full((SLOTS, SLOT), 1e-6), np.zeros(SLOTS)
    read, reads = np.zeros((HEADS, SLOTS)), np.zeros((HEADS, SLOT))
    read[:, 0] = 1
    for x in inputs:
        by_head = controller.signals(x, reads).reshape(HEADS, -1)
        keys, gates = np.tanh(by_head[:, :SLOT]), sigmoid(by_head[:, SLOT])
        strengths = np.ones(HEADS)
        if strength:
            strengths = strength * np.log2(1 + np.exp(by_head[:, SLOT + 1]))
        order = np.argsort(usage, kind="stable")
        least = np.isin(np.arange(SLOTS), order[:HEADS]).astype(float)
        write = np.stack([gates[h] * read[h] + (1 - gates[h]) * least for h in range(HEADS)])
        memory = memory.copy()
        memory[order[0]] = 0
        for head in range(HEADS):
            memory += np.outer(write[head], keys[head])
        likeness = np.stack([cosine(memory, keys[head]) for head in range(HEADS)])
        read = np.stack([softmax(row) for row in strengths[:, None] * likeness])
        reads = read @ memory
        usage = 0.95 * usage + read.sum(axis=0) + write.sum(axis=0)
        yield controller.says(reads)


SIZES = {"slots": SLOTS, "slot_width": SLOT, "controller_width": HIDDEN, "read_heads": HEADS}
BY_HAND = {
    "ntm": (ntm(OUTPUTS, **SIZES, write_heads=HEADS), ntm_by_hand),
    "dnc": (dnc(OUTPUTS, **SIZES), dnc_by_hand),
    "mann": (mann(OUTPUTS, **SIZES), mann_by_hand),
    "mann with strengths": (mann(OUTPUTS, **SIZES, strength=3), partial(mann_by_hand, strength=3)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_every_step_is_the_papers(name, lstm, x64):
    machine, by_hand = BY_HAND[name]
    random = np.random.default_rng(0)
    inputs = random.normal(size=(STEPS, 3))
    drawn = jax.eval_shape(machine.init, jax.random.key(0), inputs[0])
    # Large ones, so that gates open and close and the weightings differ from row to row.
    params = jax.tree.map(lambda leaf: 1.5 * random.normal(size=leaf.shape), drawn)
    _, outputs, _ = jax.jit(lambda params, inputs: run(machine, params, inputs))(params, inputs)
    expected = np.stack(list(by_hand(Controller(params, lstm), inputs)))
    assert np.abs(np.diff(expected, axis=0)).min() > 0.01
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
