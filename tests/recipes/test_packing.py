"""A finished run is packed, and found again by its name."""

import json
import shutil
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta.recipes import restore, shipped
from jaxmeta.recipes.folders import FINISHED, read_identity
from jaxmeta.recipes.packing import compress, expand
from jaxmeta.training.checkpoints import save_best


@pytest.fixture(scope="module")
def run(trained):
    return trained("few-shot", "prototypical")


@pytest.fixture(scope="module")
def packed(run, status, tmp_path_factory):
    """The folder of packed learners, with the run as `tiny`."""
    folder = tmp_path_factory.mktemp("packed")
    assert status("package", run, "tiny", "--folder", folder) == 0
    return folder


@pytest.fixture
def ships(packed, monkeypatch):
    """The package ships the packed run."""
    monkeypatch.setattr(shipped, "SHIPPED", packed)


@pytest.fixture
def package(status, capsys, tmp_path):
    """`package(run, name, *options)` packs into a folder of the test: status, output, error."""

    def pack(run, name, *options):
        capsys.readouterr()
        found = status("package", run, name, "--folder", tmp_path / "packed", *options)
        return (found, *capsys.readouterr())

    return pack


def outputs(run: Any):
    """What a run predicts for a task of noise."""
    draw = jax.random.uniform
    support, query = (draw(jax.random.key(n), (9, 12, 12, 1)) for n in range(2))
    task = jaxmeta.Batch(support, jnp.arange(9) % 3)
    adapted = run.learner.adapt(jax.random.key(2), run.meta_params, task)
    return np.asarray(run.learner.predict(adapted, query))


@pytest.mark.full
@pytest.mark.usefixtures("ships")
def test_a_packed_learner_predicts_as_its_run(run, packed):
    found, own = jaxmeta.pretrained("tiny"), restore(run)
    assert (found.step, found.data, found.experiment) == (own.step, own.data, own.experiment)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.trained, own.trained)
    halved = jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(leaf.dtype), own.trained)
    chex.assert_trees_all_equal(found.trained, halved)
    one, other = outputs(found), outputs(own)
    assert np.abs(one - other).max() < 2e-3 * np.abs(other).max()
    assert np.array_equal(one.argmax(axis=1), other.argmax(axis=1))
    assert jaxmeta.pretrained("tiny", ways=4).experiment.domain.episode.ways == 4  # pyright: ignore


@pytest.mark.usefixtures("ships")
def test_only_the_finished_weights_are_packed():
    """The statistics of training are folded into them: other statistics need those before."""
    assert jaxmeta.pretrained("tiny", query_statistics="training")
    with pytest.raises(ValueError, match="packed without the weights that this change requires"):
        jaxmeta.pretrained("tiny", query_statistics="batch")


def test_a_packed_folder_is_not_packed_again(packed, package):
    status, _, error = package(packed / "tiny", "again")
    assert status == 1 and "is packed already; copy the folder." in error


def test_a_packed_folder_says_where_it_comes_from(run, packed):
    folder = packed / "tiny"
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "packed.json", "results.json", "weights.npz"),
    }
    for name in ("config.json", "results.json"):
        assert (folder / name).read_bytes() == (run / name).read_bytes()
    about = json.loads((folder / "packed.json").read_text())
    assert about["identity"] == read_identity(folder) == read_identity(run)
    assert about["weights"] == "float16" and about["versions"]["jaxmeta"] == jaxmeta.__version__
    validation = about["validation"]
    assert (validation["metric"], validation["num_tasks"]) == ("accuracy", 4)
    assert abs(validation["float16"] - validation["float32"]) <= 0.0005
    assert {"command", "commit"} <= about.keys()


def test_the_validation_of_a_run_is_that_of_its_training(run, packed):
    """On the run's own number of validation tasks, float32 has the result of the best step."""
    about = json.loads((packed / "tiny" / "packed.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(line["validation_accuracy"] for line in lines if "validation_accuracy" in line)
    assert about["validation"]["float32"] == pytest.approx(best)


@pytest.mark.full
def test_weights_that_float16_can_not_hold_stay_float32(run, package, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    own = restore(copy)
    large = own.trained._replace(meta_params=jax.tree.map(lambda a: 1e6 * a, own.meta_params))
    save_best(copy / FINISHED, own.step, large, metadata={})
    status, out, error = package(copy, "large")
    assert status == 0, error
    assert "packed as float32" in out
    chex.assert_trees_all_equal(restore(tmp_path / "packed" / "large").trained, large)


def test_leaves_that_are_not_floats_are_not_rounded():
    tree = {"key": jax.random.key(3), "count": jnp.array(70_001), "none": jnp.zeros((0, 2))}
    found = expand(compress(tree, "float16"), jax.eval_shape(lambda: tree))
    chex.assert_trees_all_equal(jax.random.key_data(found.pop("key")), jnp.array([0, 3], "uint32"))
    chex.assert_trees_all_equal(found, {"count": tree["count"], "none": tree["none"]})
    with pytest.raises(ValueError, match="'count'.* is an array of one of the two"):
        expand(compress({}, "float16"), {"count": jnp.array(0)})
    with pytest.raises(ValueError, match=r"is \(2,\), the learner has \(3,\)"):
        expand(compress({"a": jnp.zeros(2)}, "float16"), {"a": jnp.zeros(3)})


def test_what_is_not_packed(run, package, tmp_path, monkeypatch):
    taken = tmp_path / "packed" / "taken"
    taken.mkdir(parents=True)
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    (unfinished / "results.json").unlink()
    other = shutil.copytree(run, tmp_path / "other")
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "identity": "0"}))
    for source, name, told in (
        (run, "taken", "exists; give another name, or --overwrite"),
        (run, "No_Name", "can't be the name of a learner; use lower-case letters"),
        (unfinished, "new", "is not a finished run: it has no results.json; continue it with"),
        (other, "new", "results.json belongs to another run"),
        (tmp_path, "new", "is not a run folder"),
    ):
        status, out, error = package(source, name)
        assert (status, out) == (1, "") and told in error
        assert len(error.splitlines()) == 1
    with monkeypatch.context() as patch:
        patch.setattr("jaxmeta.commands.package.MOST", 3000)
        assert "bytes, at most 3,000 are supported" in package(run, "new")[2]
    with monkeypatch.context() as patch:
        weights = {"frozen": jnp.ones(2)}
        patch.setattr(type(restore(run).experiment.domain), "constants", lambda *_: weights)
        assert "uses frozen weights of few-shot, which are not part of" in package(run, "new")[2]
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["taken"]
    assert not [*taken.iterdir()]


def test_an_existing_learner_is_replaced_on_demand(run, package, tmp_path):
    old = tmp_path / "packed" / "tiny"
    old.mkdir(parents=True)
    (old / "left.json").touch()
    assert package(run, "tiny", "--overwrite")[0] == 0
    assert len([*old.iterdir()]) == 4 and restore(old).step > 0
    assert [path.name for path in old.parent.iterdir()] == ["tiny"]


def test_damaged_weights_are_told(packed, tmp_path):
    copy = shutil.copytree(packed / "tiny", tmp_path / "tiny")
    path = copy / "weights.npz"
    whole = path.read_bytes()
    for content in (whole[:-1], b"", bytes([*whole[:99], whole[99] ^ 1, *whole[100:]])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights.npz can't be used \(it has changed"):
            restore(copy)
    path.write_bytes(whole)
    (copy / "packed.json").write_text("{}")
    with pytest.raises(ValueError, match="weights.npz can't be used"):
        restore(copy)


def test_the_weights_of_another_run_are_told(packed, tmp_path):
    copy = shutil.copytree(packed / "tiny", tmp_path / "tiny")
    fields = json.loads((copy / "config.json").read_text())
    fields["training"]["seed"] += 1
    (copy / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="it belongs to another run"):
        restore(copy)


# --- names --------------------------------------------------------------------------------


@pytest.mark.usefixtures("ships")
def test_an_unknown_name_lists_the_names_and_the_nearest(packed):
    with pytest.raises(ValueError, match=r"'tinny'; did you mean tiny\? the names are tiny\."):
        jaxmeta.pretrained("tinny")
    for name in ("", "../packed/tiny", str(packed / "tiny"), "."):
        with pytest.raises(ValueError, match="unknown trained learner"):
            jaxmeta.pretrained(name)


def test_without_any_shipped_learner(tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "absent"):
        monkeypatch.setattr(shipped, "SHIPPED", folder)
        with pytest.raises(ValueError, match="'tiny'; this version of jaxmeta ships none"):
            jaxmeta.pretrained("tiny")


def test_a_killed_packing_leaves_the_old_learner_under_its_name(packed, tmp_path, monkeypatch):
    shutil.copytree(packed / "tiny", tmp_path / ".tiny.old")
    (tmp_path / ".tiny.new").mkdir()
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    assert [*shipped.shipped()] == ["tiny"]
    assert jaxmeta.pretrained("tiny").step > 0


def test_what_is_shipped_is_whole_and_small():
    for name, folder in shipped.shipped().items():
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 500_000, name
        assert jaxmeta.pretrained(name).step > 0


@pytest.mark.usefixtures("ships")
def test_a_name_stands_for_a_run(run, draw_classes, status, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = draw_classes(tmp_path / "mine", 3, 2, seed=9)
    images = ("--support", mine, "--query", mine / "class-01" / "0.png")
    assert status("predict", "tiny", *images) == 0
    assert '"class-01",' in (tmp_path / "predictions.csv").read_text()

    assert status("evaluate", "tiny", "--shots", "2") == 0
    made = json.loads((tmp_path / "tiny-evaluation-shots-2.json").read_text())
    assert made["shots"] == 2 and made["identity"] == read_identity(run)
    assert len([*(shipped.SHIPPED / "tiny").iterdir()]) == 4  # nothing was written there

    capsys.readouterr()
    for command in (("evaluate", "tinny"), ("predict", "tinny", *images)):
        assert status(*command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "tinny is not a run folder, nor the name of a trained" in line
        assert "did you mean tiny? the names are tiny." in line
    (tmp_path / "tiny").mkdir()  # a folder of that name is the run
    assert status("predict", "tiny", *images) == 1
    assert "tiny is not a run folder: it has no config.json" in capsys.readouterr().err
