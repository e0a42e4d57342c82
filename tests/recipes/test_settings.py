"""Settings survive JSON, refuse what no run can use, and give learners that update."""

import copy
import dataclasses
import json
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.commands.experiment import RunOptions
from jaxmeta.learners import MetaTransferParams
from jaxmeta.recipes import (
    Engine,
    Experiment,
    HeldOut,
    Problem,
    Tasks,
    Training,
    find_domain,
    find_learner,
    from_json,
    known_domains,
    known_learners,
    settings,
    start,
    to_json,
)
from jaxmeta.recipes.folders import read_config
from jaxmeta.recipes.learners import meta_transfer

PAIRS = [
    (domain, learner)
    for domain, kind in sorted(known_domains().items())
    for learner in known_learners(kind.kind)
]
NAMES = [f"{domain}-{learner}" for domain, learner in PAIRS]
# These domains refuse learners that adapt a pre-trained network of images.
BUILT = [
    pair
    for pair in PAIRS
    if not (pair[0] in ("text", "entities", "sentiment") and find_learner(pair[1])().needs.folded)
]
BUILT_NAMES = [f"{domain}-{learner}" for domain, learner in BUILT]
# Those whose settings differ by kind; the others' updates are those of the contract battery.
QUICK = ("maml", "reptile", "prototypical", "mann", "conditional-neural-process", "lstm-optimizer")
QUICK += ("meta-transfer", "supervised")
# What a domain needs to know of its data, where it has any.
DATA = {"image_shape": [28, 28, 1], "images_sha256": "of none", "ink": True}
DATA |= {"classes": {"train": 60, "validation": 20, "test": 20}}
# Of the last layers, two adapt by default.
ENCODER = {"vocabulary": 20, "width": 8, "layers": 3, "heads": 2}
ENCODER |= {"hidden": 16, "positions": 64}


def of(domain: str, learner: str, **changes: Any) -> Any:
    return start(find_domain(domain), find_learner(learner)).changed(**changes)


def data_identity(domain: str, learner: str) -> dict[str, Any]:
    if domain == "architectures":
        return {"image_shape": [8, 8, 1], "classes": 10}
    if domain in ("text", "entities", "sentiment"):
        return {"encoder": ENCODER, "sentences_sha256": "of none"}
    if learner == "active-one-shot":
        return DATA
    of_features = {"features": 8, "base_examples": 20, "width": 4}
    return {
        "few-shot": DATA,
        "pretrain": DATA,
        "class-streams": DATA,
        "features": DATA | of_features,
        "generate": DATA | of_features,
    }.get(domain, {})


def problem_of(experiment: Experiment, *, train: bool) -> Problem:
    domain, learner = experiment.domain, experiment.learner
    data = data_identity(domain.name, learner.name)
    return domain.problem(experiment.training, learner.needs, data, train=train)


def engine_of(experiment: Experiment, problem: Problem) -> Engine:
    test = HeldOut(lambda key: problem.example, {})
    tasks = Tasks(lambda: test.source, lambda: test, {"test": test})
    return Engine(experiment.training, tasks, None)


@pytest.fixture
def with_pretrained(monkeypatch):
    """Gives learners that start from a pre-trained network one of zeros."""

    def zeros(folder, problem):
        images = problem.example.support.inputs
        shapes = jax.eval_shape(problem.encoder().init, jax.random.key(0), images)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    monkeypatch.setattr(meta_transfer, "frozen_network", zeros)

    def given(experiment):
        known = settings.names(experiment.learner)
        return experiment.changed(pretrained="a run") if "pretrained" in known else experiment

    return given


# --- JSON ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "learner"), PAIRS, ids=NAMES)
def test_json_and_back(domain, learner):
    kind = find_domain(domain)
    for preset in kind.presets:
        experiment: Any = start(kind, find_learner(learner), preset.pattern)
        for own in (experiment, experiment.resolved()):
            assert from_json(json.loads(json.dumps(to_json(own)))) == own
        assert experiment.resolved().resolved() == experiment.resolved()


def test_settings_that_came_later_have_their_defaults():
    experiment = of("few-shot", "maml", ways=7)
    fields = to_json(experiment)
    del fields["training"]["clip_norm"], fields["tasks"]["episode"]["distractors"]
    del fields["tasks"]["image_network"], fields["learner"]["truncate"]
    assert from_json(fields) == experiment


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda fields: fields.update(experiment="juggling"), "unknown experiment 'juggling'"),
        (lambda fields: fields["learner"].update(name="maml++"), "unknown learner 'maml..'"),
        (lambda fields: fields["learner"].update(name=3), "unknown learner '3'"),
        (lambda fields: fields["learner"].pop("name"), "unknown learner 'None'"),
        (lambda fields: fields["learner"].update(warp=9), "Maml has no setting 'warp'"),
        (lambda fields: fields["tasks"].update(warp=9), "FewShot has no setting 'warp'"),
        (lambda fields: fields["tasks"]["images"].update(warp=9), "images has no setting 'warp'"),
        (lambda fields: fields["training"].update(warp=9), "Training has no setting 'warp'"),
        (lambda fields: fields.update(warp=9), "unknown entry 'warp'"),
        (lambda fields: fields.pop("learner"), "does not hold the settings"),
        (lambda fields: fields.pop("experiment"), "unknown experiment 'None'"),
        (lambda fields: fields.update(learner=[]), "does not hold the settings"),
        (lambda fields: fields.update(tasks=[]), "not a mapping of settings"),
        (lambda fields: fields.update(training=3), "not a mapping of settings"),
        (lambda fields: fields.update(data=[]), "does not hold the settings"),
        (lambda fields: fields["tasks"].update(images=[["dataset"]]), "images is .*not a mapping"),
        (lambda fields: fields["tasks"]["images"].update(dataset=["x"]), "dataset .*expected str"),
        (lambda fields: fields["tasks"]["image_network"].update(network="vit"), "network is 'vit'"),
        (lambda fields: fields["tasks"]["episode"].update(ways="5"), "ways is '5'"),
        (lambda fields: fields["tasks"]["episode"].update(ways=True), "ways is True"),
        (lambda fields: fields["tasks"]["episode"].update(ways=5.0), "ways is 5.0"),
        (lambda fields: fields["tasks"]["episode"].update(ways=1), "--ways 1: "),
        (lambda fields: fields["training"].update(outer_rate="1e-3"), "outer_rate is '1e-3'"),
        (lambda fields: fields["training"].update(outer_rate=math.nan), "--outer-rate nan: "),
        (lambda fields: fields["training"].update(outer_rate=10**400), "outer_rate|outer-rate"),
        (lambda fields: fields["training"].update(steps=None), "steps is None"),
        (lambda fields: fields["learner"].update(name="lstm"), "Lstm has no setting"),
        (
            lambda fields: fields.update(learner={"name": "lstm"}),
            "does not support tasks of few-shot",
        ),
    ],
)
def test_a_damaged_configuration_is_refused_in_one_line(change, told, tmp_path):
    fields = {**to_json(of("few-shot", "maml")), "data": DATA}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    assert read_config(tmp_path).experiment == of("few-shot", "maml")
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=told) as caught:
        read_config(tmp_path)
    assert str(caught.value).startswith(f"{path} can't be read: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"3", b"null", b'"maml"', b"\xff\xfe", b"\x00"),
        b"[" * 100_000,
        b'{"learner": ' * 100_000,
        b'{"experiment": "few-shot", "learner": {"name": "maml"}, "tasks": '
        + b'{"images": ' * 500
        + b"{}"
        + b"}" * 501,
        b'{"learner": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda text: f"{text[:12].decode('latin-1')!r} of {len(text)}",
)
def test_a_file_that_holds_no_settings_is_refused_in_one_line(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="can't be read") as caught:
        read_config(tmp_path)
    assert str(caught.value).startswith(f"{path} can't be read: ")
    assert "\n" not in str(caught.value)


def places(fields: Any, within: tuple[str, ...] = ()) -> Any:
    """The paths to all entries of nested dictionaries."""
    for name, value in fields.items():
        yield (*within, name)
        if isinstance(value, dict):
            yield from places(value, (*within, name))


@pytest.mark.parametrize(
    ("domain", "learner"),
    [
        *(("few-shot", "reptile"), ("regression", "meta-sgd"), ("sequence", "ntm")),
        *(("optimizers", "mlp-optimizer"), ("pretrain", "supervised")),
    ],
)
def test_a_value_of_another_type_is_refused_or_kept(domain, learner):
    """Whatever stands in the file: settings, or a ValueError; never another error."""
    fields = to_json(of(domain, learner))
    for *path, name in places(fields):
        for value in (None, True, 3, -1, 2.5, 10**400, "words", [], [1, 2], [[1]], {}, {"a": 1}):
            changed: Any = copy.deepcopy(fields)
            entry = changed
            for word in path:
                entry = entry[word]
            entry[name] = value
            try:
                found = from_json(changed)
            except ValueError:
                continue
            back: Any = to_json(found)
            if value != {}:  # which stands for all defaults
                for word in (*path, name):
                    back = back[word]
                assert back == (tuple(value) if isinstance(value, list) else value)


# --- what no run can use ------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["few-shot", "regression"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("steps", "task_batch", "chunk") for value in (0, -3)],
        *[(name, 0) for name in ("tasks_at_once", "checkpoint_every", "halve_every")],
        *[(name, 0) for name in ("shots", "queries", "train_shots", "train_queries")],
        *[("outer_rate", value) for value in (0.0, -1e-3, math.nan, math.inf)],
        *[(name, value) for name in ("clip", "clip_norm") for value in (-1.0, 0.0, math.nan)],
        ("aggregate_norm", 0.0),
        ("eval_tasks", 1),
        ("validation_tasks", 1),
    ],
)
def test_numbers_that_no_run_can_use(domain, name, value):
    option = f"--{name.replace('_', '-')} {value}: give a number that is "
    with pytest.raises(ValueError, match=option):
        settings.check(of(domain, "maml", **{name: value}))


@pytest.mark.parametrize(
    ("domain", "learner", "name", "value"),
    [
        ("few-shot", "maml", "ways", 1),
        ("few-shot", "maml", "train_ways", 0),
        ("few-shot", "maml", "width", 0),
        ("few-shot", "maml", "device_budget", 0.0),
        ("few-shot", "maml", "unlabelled", -1),
        ("few-shot", "maml", "inner_rate", math.nan),
        ("few-shot", "first-order-maml", "inner_rate", -0.1),
        ("few-shot", "reptile", "inner_batch", 0),
        ("few-shot", "maml", "inner_steps", -1),
        ("few-shot", "maml", "eval_inner_steps", -1),
        ("few-shot", "maml", "truncate", -1),
        ("few-shot", "maml-plus-plus", "first_order_fraction", 1.5),
        ("few-shot", "imaml", "damping", -1.0),
        ("few-shot", "mann", "slots", 0),
        ("sequence", "lstm", "width", 0),
        ("sequence", "lstm", "bits", 0),
        ("sequence", "lstm", "instances", 1),
        ("optimizers", "lstm-optimizer", "horizon", 0),
        ("optimizers", "lstm-optimizer", "std", 0.0),
        ("pretrain", "supervised", "light", 1.5),
    ],
)
def test_numbers_that_no_run_of_theirs_can_use(domain, learner, name, value):
    option = f"--{name.replace('_', '-')} {value}: give a number that is "
    with pytest.raises(ValueError, match=option):
        settings.check(of(domain, learner, **{name: value}))


@pytest.mark.parametrize(
    ("rates", "shown"),
    [((math.nan, 0.1), "nan 0.1"), ((-0.1, 0.1), "-0.1 0.1"), ((0.2, 0.1), "0.2 0.1")],
)
def test_ranges_of_rates_that_no_run_can_use(rates, shown):
    with pytest.raises(ValueError, match=f"--initial-rate {shown}: "):
        settings.check(of("few-shot", "meta-sgd", initial_rate=rates))


def test_a_name_that_no_setting_has():
    with pytest.raises(ValueError, match="--distance cosine: maml on few-shot has no such setting"):
        of("few-shot", "maml", distance="cosine")


@pytest.mark.parametrize(("domain", "learner"), PAIRS, ids=NAMES)
def test_names_of_settings_are_unique(domain, learner):
    """So that an option of the command line, or a change by name, means one setting."""

    def names(own):
        for field in dataclasses.fields(own):
            value = getattr(own, field.name)
            yield from names(value) if dataclasses.is_dataclass(value) else [field.name]

    parts = (find_domain(domain)(), find_learner(learner)(), Training(), RunOptions())
    counts = Counter(name for own in parts for name in names(own))
    assert [name for name, count in counts.items() if count > 1] == []


# --- learners and their updates -----------------------------------------------------------


def test_a_head_knows_as_many_ways_as_it_was_trained_with():
    many = {"ways": 7, "train_ways": 5}
    maml, prototypical = (of("few-shot", name, **many) for name in ("maml", "prototypical"))
    with pytest.raises(
        ValueError,
        match="the 5 classes of its training tasks, and requires tasks of 5 classes, not 7",
    ):
        maml.learner.build(problem_of(maml, train=False))
    prototypical.learner.build(problem_of(prototypical, train=False))


@pytest.mark.full
@pytest.mark.parametrize(
    ("domain", "learner"),
    [
        pair if pair[1] in QUICK else pytest.param(*pair, marks=pytest.mark.slow, id=name)
        for pair, name in zip(BUILT, BUILT_NAMES)
    ],
)
def test_every_learner_is_built_and_updates(domain, learner, with_pretrained):
    """In shapes alone: nothing is compiled."""
    experiment = with_pretrained(of(domain, learner, task_batch=1, steps=10))
    small = {"width": 4, "network": "conv4-stride"}
    small |= {"train_ways": 5, "train_shots": 2, "train_queries": 1, "hard_tasks": False}
    small |= {"unlabelled": 0}
    known = settings.names(experiment.domain)
    experiment = experiment.changed(**{n: v for n, v in small.items() if n in known})
    recipe = experiment.learner
    of_training, of_test = (problem_of(experiment, train=train) for train in (True, False))
    assert (of_training.train, of_test.train) == (True, False)
    assert of_training.kind in recipe.kinds

    sample = jax.tree_util.Partial(lambda key: of_training.example)
    init, update = recipe.update(recipe.build(of_training), engine_of(experiment, of_training))
    state = jax.eval_shape(init, jax.random.key(0), sample)
    after, info = jax.eval_shape(update, state, sample)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert info.loss.shape == ()
    learner = recipe.build(of_test)
    shared = {} if learner.shared is None else {"shared": state.shared}
    given = (jax.random.key(0), state.meta_params, of_training.example)
    loss, _ = jax.eval_shape(learner.loss, *given, **shared)
    assert loss.shape == ()


def test_scales_and_shifts_have_a_rate_of_their_own(with_pretrained, monkeypatch):
    experiment = with_pretrained(
        of("few-shot", "meta-transfer", filter_rate=1e-4, outer_rate=1e-2, hard_tasks=False)
    ).changed(outer_schedule="constant")
    given = {}
    monkeypatch.setattr(Engine, "update", lambda self, *arguments: given.update(own=arguments))
    problem = problem_of(experiment, train=True)
    learner = experiment.learner.build(problem)
    experiment.learner.update(learner, engine_of(experiment, problem))
    _, optimizer = given["own"]
    ones = MetaTransferParams(*[{"w": jnp.ones(2)}] * 4)
    moved, _ = optimizer.update(ones, optimizer.init(ones), ones)  # Adam's first step is its rate
    for part, rate in (("scales", 1e-4), ("shifts", 1e-4), ("head", 1e-2)):
        np.testing.assert_allclose(getattr(moved, part)["w"], -rate, rtol=1e-5)


def test_tasks_at_once_divide_the_task_batch():
    experiment = of("few-shot", "maml", task_batch=4, tasks_at_once=3)
    problem = problem_of(experiment, train=True)
    with pytest.raises(ValueError, match="a number that divides 4"):
        experiment.learner.update(experiment.learner.build(problem), engine_of(experiment, problem))


@pytest.mark.parametrize("network", ["conv4-stride", "conv4-pool", "resnet12", "mlp"])
def test_every_network_has_as_many_outputs_as_ways(network):
    experiment = of("few-shot", "maml", network=network, width=4)
    problem = problem_of(experiment, train=True)
    images = jnp.zeros((5, 28, 28, 1))
    shapes = []
    for init, apply in (problem.model(), problem.encoder()):
        params = jax.eval_shape(init, jax.random.key(0), images)
        shapes.append(jax.eval_shape(apply, params, images).shape)
    (rows, ways), (_, features) = shapes
    assert (rows, ways) == (5, 5)
    assert features == {"mlp": 64, "resnet12": 8 * 4}.get(network, 4)


@pytest.mark.parametrize("domain", ["few-shot", "regression"])
def test_another_test_task_leaves_the_training_task_alone(domain):
    experiment = of(domain, "maml").resolved()
    changed = experiment.changed(shots=3)
    before, after = (problem_of(own, train=True) for own in (experiment, changed))
    assert jax.tree.map(np.shape, before.example) == jax.tree.map(np.shape, after.example)
    assert before.support == after.support
    rows = 3 * 5 if domain == "few-shot" else 3
    assert problem_of(changed, train=False).support == rows


@pytest.mark.full
@pytest.mark.parametrize(("domain", "learner"), BUILT, ids=BUILT_NAMES)
def test_what_may_change_at_test_leaves_the_parameters_alone(domain, learner):
    """`evaluate` offers these settings: under another value a checkpoint still fits."""
    experiment = of(domain, learner).resolved()
    recipe = experiment.learner
    other = {"ways": 4, "shots": 3, "queries": 9, "eval_inner_steps": 7}
    if not recipe.needs.any_ways:
        del other["ways"]  # refused, see above
    offered = {name for part in (experiment.domain, recipe) for name, _ in settings.at_test(part)}

    def shapes(own: Any) -> Any:
        problem = problem_of(own, train=False)
        learner = own.learner.build(problem)
        return jax.eval_shape(learner.init, jax.random.key(0), problem.example)

    changes = {name: value for name, value in other.items() if name in offered}
    changed = experiment.changed(**changes)
    settings.check(changed)
    assert shapes(changed) == shapes(experiment)


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        (domain, name)
        for domain, own in known_domains().items()
        for name, value in settings.values(start(own, find_learner(own.default_learner))).items()
        if name in ("task", "family", "pipeline", "network", "precision", "kernel", "rotations")
        and isinstance(value, str)
    ],
)
@pytest.mark.parametrize("spelt", [str.upper, lambda value: value + " ", lambda value: value[:-1]])
def test_a_near_miss_of_a_choice_is_no_choice(domain, name, spelt):
    own = known_domains()[domain]
    experiment = start(own, find_learner(own.default_learner))
    wrong = spelt(settings.values(experiment)[name])
    with pytest.raises(ValueError, match=f"{settings.option(name)} .*: choose from "):
        settings.check(experiment.changed(**{name: wrong}))
