"""A configuration survives JSON and refuses, before any work, what no run can use."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import presets
from jaxmeta.learners import MetaTransferParams
from jaxmeta.models import pack
from jaxmeta.training.build import example_task, outer_optimizer_of, update_of
from jaxmeta.training.build_learner import learner_of, network_of
from jaxmeta.training.config import (
    LEARNERS,
    REGRESSORS,
    FewShot,
    Regression,
    check,
    from_json,
    to_json,
)
from jaxmeta.training.options import (
    FirstOrderMaml,
    Maml,
    MetaSgd,
    MetaTransfer,
    Prototypical,
    Reptile,
)
from jaxmeta.training.restore import with_episode

IMAGES = FewShot(steps=10, task_batch=4)
CURVES = Regression(steps=10, task_batch=4)


def with_backbone(config, folder):
    """With a pre-trained network for the learner that starts from one."""
    if not hasattr(config.learner, "pretrained"):
        return config
    params = network_of(config, None).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    contents = {"network": params, "images_sha256": np.array("of none")}
    (folder / "backbone.npz").write_bytes(pack(contents))
    learner = dataclasses.replace(config.learner, pretrained=str(folder))
    return dataclasses.replace(config, learner=learner)


ALL = [
    *(presets.find(FewShot, learner, None) for learner in LEARNERS),
    *(presets.find(Regression, learner, None) for learner in REGRESSORS),
]
NAMES = [f"{c.experiment}-{c.learner.name}" for c in ALL]
QUICK = ("maml", "reptile", "prototypical", "mann", "conditional-neural-process")


@pytest.mark.parametrize("config", ALL, ids=NAMES)
def test_json_and_back(config, tmp_path):
    text = json.dumps(to_json(config))
    assert from_json(json.loads(text)) == config
    check(config)
    config = with_backbone(config, tmp_path)
    learner_of(config, train=True)
    learner_of(config, train=False)
    update_of(config)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(experiment="juggling"),
        lambda fields: fields["learner"].update(name="maml++"),
        lambda fields: fields["learner"].update(warp=9),
        lambda fields: fields.update(warp=9),
        lambda fields: fields.pop("learner"),
    ],
)
def test_json_of_another_version_is_refused(change):
    fields = to_json(IMAGES)
    change(fields)
    with pytest.raises(ValueError, match="another version of jaxmeta"):
        from_json(fields)


@pytest.mark.parametrize("config", [IMAGES, CURVES])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("steps", "task_batch", "chunk") for value in (0, -3)],
        *[(name, 0) for name in ("tasks_at_once", "checkpoint_every", "halve_every")],
        *[(name, 0) for name in ("shots", "queries", "train_shots", "train_queries")],
        *[("outer_rate", value) for value in (0.0, -1e-3, math.nan, math.inf)],
        ("clip", -1.0),
        ("eval_tasks", 1),
        ("validation_tasks", 1),
    ],
)
def test_numbers_that_no_run_can_use(config, name, value):
    option = f"--{name.replace('_', '-')} {value}: "
    with pytest.raises(ValueError, match=option):
        check(dataclasses.replace(config, **{name: value}))


@pytest.mark.parametrize(("name", "value"), [("ways", 1), ("train_ways", 0), ("width", 0)])
def test_numbers_that_no_image_run_can_use(name, value):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} {value}: "):
        check(dataclasses.replace(IMAGES, **{name: value}))


@pytest.mark.parametrize(
    ("learner", "option"),
    [
        (Maml(inner_rate=math.nan), "--inner-rate nan"),
        (FirstOrderMaml(inner_rate=-0.1), "--inner-rate -0.1"),
        (Reptile(inner_batch=0), "--inner-batch 0"),
        (Maml(inner_steps=-1), "--inner-steps -1"),
        (Maml(eval_inner_steps=-1), "--eval-inner-steps -1"),
        (Maml(truncate=-1), "--truncate -1"),
        (MetaSgd(initial_rate=(math.nan, 0.1)), "--initial-rate nan 0.1"),
        (MetaSgd(initial_rate=(-0.1, 0.1)), "--initial-rate -0.1 0.1"),
        (MetaSgd(initial_rate=(0.2, 0.1)), "--initial-rate 0.2 0.1"),
    ],
)
def test_learners_that_no_run_can_use(learner, option):
    with pytest.raises(ValueError, match=option):
        check(dataclasses.replace(IMAGES, learner=learner))


def test_a_head_knows_as_many_ways_as_it_was_trained_with():
    config = dataclasses.replace(IMAGES, ways=7, train_ways=5)
    with pytest.raises(ValueError, match="the 5 classes that it is trained with and cannot tell 7"):
        learner_of(config, train=False)
    learner_of(dataclasses.replace(config, learner=Prototypical()), train=False)


@pytest.mark.parametrize(
    "config",
    [c if c.learner.name in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in ALL],
    ids=NAMES,
)
def test_every_learner_is_built_and_updates(config, tmp_path):
    """In shapes alone: nothing is compiled."""
    config = dataclasses.replace(config, task_batch=1, steps=10)
    if isinstance(config, FewShot):
        config = dataclasses.replace(config, width=4, train_ways=5, train_shots=2, train_queries=1)
        config = dataclasses.replace(config, hard_tasks=False)  # these want real images
    config = with_backbone(config, tmp_path)
    sample = jax.tree_util.Partial(lambda key: example_task(config, (28, 28, 1)))
    init, update = update_of(config)
    state = jax.eval_shape(init, jax.random.key(0), sample)
    after, info = jax.eval_shape(update, state, sample)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert info.loss.shape == ()
    adapted = jax.eval_shape(
        learner_of(config, train=False).loss,
        jax.random.key(0),
        state.meta_params,
        example_task(config, (28, 28, 1)),
    )
    assert adapted[0].shape == ()


def test_scales_and_shifts_have_a_rate_of_their_own():
    learner = MetaTransfer(filter_rate=1e-4)
    config = dataclasses.replace(IMAGES, learner=learner, outer_rate=1e-2)
    ones = MetaTransferParams(*[{"w": jnp.ones(2)}] * 4)
    optimizer = outer_optimizer_of(config)
    moved, _ = optimizer.update(ones, optimizer.init(ones), ones)  # Adam's first step is its rate
    for part, rate in (("scales", 1e-4), ("shifts", 1e-4), ("head", 1e-2)):
        np.testing.assert_allclose(getattr(moved, part)["w"], -rate, rtol=1e-5)


def test_tasks_at_once_divides_the_task_batch():
    with pytest.raises(ValueError, match="a number that divides 4"):
        update_of(dataclasses.replace(IMAGES, tasks_at_once=3))


@pytest.mark.parametrize("network", ["conv4-stride", "conv4-pool", "resnet12", "mlp"])
def test_every_network_has_as_many_outputs_as_ways(network):
    config = dataclasses.replace(IMAGES, network=network, width=4)
    images = jnp.zeros((5, 28, 28, 1))
    shapes = []
    for outputs in (5, None):
        init, apply = network_of(config, outputs)
        params = jax.eval_shape(init, jax.random.key(0), images)
        shapes.append(jax.eval_shape(apply, params, images).shape)
    (rows, ways), (_, features) = shapes
    assert (rows, ways) == (5, 5)
    assert features == {"mlp": 64, "resnet12": 8 * 4}.get(network, 4)


def test_another_test_episode_leaves_the_training_episode_alone():
    config = with_episode(IMAGES, ways=20, shots=5)
    assert config.episode(False) == {"ways": 20, "shots": 5, "queries": 15}
    assert config.episode(True) == IMAGES.episode(True)
    curves = with_episode(CURVES, shots=3)
    assert curves.episode(False) == {"shots": 3, "queries": 100}
    assert curves.episode(True) == CURVES.episode(True)
