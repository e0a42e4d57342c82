"""Sets of pools: FS-Mol in both forms, tables, baselines, and what can't be read."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from jaxmeta.core import Batch
from jaxmeta.data.identity import Seen
from jaxmeta.data.pool_sets import (
    class_metrics,
    describe_pools,
    known_pools,
    load_pools,
    number_metrics,
    unseen_pools,
)
from jaxmeta.data.pool_sets.baselines import (
    linear,
    nearest_neighbours,
    random_forest,
    tanimoto_neighbours,
)
from jaxmeta.data.pool_sets.fsmol import fsmol, published
from jaxmeta.data.pool_sets.table import Scaling, table_pools
from jaxmeta.data.pools import identified, select_pools

with_data = pytest.mark.skipif(
    "JAXMETA_DATA_DIR" not in os.environ, reason="JAXMETA_DATA_DIR is not set"
)


def molecule(number: int) -> dict:
    bits = np.random.default_rng(number).integers(0, 2, 2048).tolist()
    bits[0] = number
    return {"SMILES": "C" * number, "fingerprints": bits}


def write_public(folder: Path) -> Path:
    """FS-Mol's own form: a line of JSON for each molecule of an assay; assays share molecules."""
    for part, assays in {"train": ("A", "B"), "valid": ("C",), "test": ("D",)}.items():
        (folder / part).mkdir(parents=True)
        for assay in assays:
            rows = [
                {
                    **molecule(number),
                    "Property": f"{float(number % 2)}",
                    "Assay_ID": assay,
                    "RegressionProperty": "1.0",
                    "descriptors": [0.5],
                    "graph": {},
                }
                for number in range(1, 5 if assay == "A" else 7)
            ]
            with gzip.open(folder / part / f"{assay}.jsonl.gz", "wt") as file:
                file.write("\n".join(map(json.dumps, rows)))
    return folder


def write_condensed(folder: Path, public) -> Path:
    """The same molecules in the sparse form, in another order."""
    inputs = public.train.inputs[::-1]
    where = [np.flatnonzero(row) for row in inputs]
    np.savez(
        folder / "fsmol_fingerprints.npz",
        indptr=np.cumsum([0, *map(len, where)]).astype(np.int32),
        indices=np.concatenate(where).astype(np.uint16),
        counts=np.concatenate([row[own] for row, own in zip(inputs, where)]),
        n_bits=2048,
    )
    for part, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        pools, lines = getattr(public, part), ["assay_id,molecule_index,label,value"]
        for pool, assay in enumerate(pools.names):
            for place in pools.places(pool):
                row = len(inputs) - 1 - pools.rows[place]
                lines.append(f"{assay},{row},{float(pools.targets[place])},3.5")
        with gzip.open(folder / f"fsmol_{name}.csv.gz", "wt") as file:
            file.write("\n".join(lines))
    return folder


def test_both_forms_of_fsmol_are_the_same_set(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))
    public = fsmol(write_public(tmp_path / "public"))
    assert public.train.names == ("A", "B") and public.test.names == ("D",)
    assert public.train.counts.tolist() == [4, 6]
    assert public.train.inputs.shape == (6, 2048)  # assays share their molecules
    for pool, _ in enumerate(public.train.names):
        places = public.train.places(pool)
        rows = public.train.inputs[public.train.rows[places]]
        numbers = rows[:, 0]
        assert (public.train.targets[places] == numbers % 2).all()
        expected = [molecule(int(number))["fingerprints"] for number in numbers]
        np.testing.assert_array_equal(rows, expected)
    (tmp_path / "condensed").mkdir()
    other = fsmol(write_condensed(tmp_path / "condensed", public))
    for part in ("train", "validation", "test"):
        one, two = public.parts[part], other.parts[part]
        assert one.names == two.names
        np.testing.assert_array_equal(one.targets, two.targets)
        np.testing.assert_array_equal(one.inputs[one.rows], two.inputs[two.rows])
    again = fsmol(tmp_path / "public")  # from the cache
    np.testing.assert_array_equal(again.train.rows, public.train.rows)


def test_a_missing_fsmol_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"unpack fs-mol\.tar of https://github\.com"):
        fsmol(tmp_path)


@with_data
def test_the_published_figures_are_those_of_the_papers():
    """Means over the 157 test assays, as in FS-Mol's table for 16 molecules."""
    if not (Path(os.environ["JAXMETA_DATA_DIR"]) / "fsmol_published").is_dir():
        pytest.skip("needs real data: there is no fsmol_published in JAXMETA_DATA_DIR")
    figures = published(16)
    assert len(figures) == 18
    means = {method: np.mean([*own.values()]) for method, own in figures.items()}
    expected = {"random forest": 0.098, "kNN": 0.056, "GNN-MAML": 0.165, "ProtoNet": 0.211}
    for method, value in expected.items():
        assert len(figures[method]) == 157
        assert means[method] == pytest.approx(value, abs=6e-4)
    assert len(published(256)["ProtoNet"]) == 43


# --- tables -------------------------------------------------------------------------------


def test_a_table_has_scaled_features_and_its_own_split(table):
    found = table_pools(table)
    assert found.kind == "classification" and found.ways == 2
    assert found.columns == ("weight", "size")
    assert [len(own.names) for own in found.parts.values()] == [4, 2, 6]
    training = found.train.inputs[found.train.rows]
    np.testing.assert_allclose(training.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(training.std(axis=0), 1, atol=1e-6)
    assert table_pools(table, target_column="size").kind == "regression"
    assert describe_pools(str(table)).kind is None
    assert load_pools(str(table)).protocol["pools"] == {"train": 4, "validation": 2, "test": 6}


def test_a_parquet_file_is_the_same_table(table, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    parquet.write_table(csv.read_csv(table), tmp_path / "pools.parquet")
    one, two = table_pools(table), table_pools(tmp_path / "pools.parquet")
    assert pyarrow and one.sha256() == two.sha256() and one.columns == two.columns


def test_missing_cells_are_the_mean_and_a_split_is_drawn(tmp_path):
    rows = [
        f"{pool},{pool * 10 + row},{'' if row == 0 else row},{row / 2}"
        for pool in range(8)
        for row in range(4)
    ]
    path = tmp_path / "cells.csv"
    path.write_text("\n".join(["pool,large,gap,target", *rows]))
    found = table_pools(path, seed=1)
    assert found.kind == "regression" and found.train.targets.shape[1] == 1
    gaps = found.train.inputs[found.train.rows][:, 1]
    assert (gaps[np.isclose(found.train.targets[:, 0], 0)] == 0).all()
    names = [name for own in found.parts.values() for name in own.names]
    assert sorted(names) == [*map(str, range(8))]
    assert found.train.names != table_pools(path, seed=2).train.names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pool,x,target", "has no rows"),
        ("x,target\n1,2", "has no column 'pool'"),
        ("pool,target\na,1", "has no columns of features"),
        (
            "pool,x,target\na,red,1",
            "'red' in column 'x', row 1 after the header, is not a finite number",
        ),
        ("pool,x,target\na,1,1\na,inf,1", "'inf' in column 'x', row 2 after the header, is not"),
        ("pool,x,target\na,1,yes", "'yes' in column 'target', .* number classes from 0"),
        ("pool,x,target\na,1,1\na,1,", "the target in row 2 after the header is missing"),
        ("pool,x,x,target\na,1,1,1", "two columns 'x'"),
        ("pool,x,target\na,1,1\nb,2,0", "has 2 pools; give at least 6"),
        ("pool,x,target,split\na,1,1,train\nb,2,0,test", "no row has 'validation'"),
        (
            "pool,x,target,split\na,1,1,train\nb,2,0,val\nc,1,1,test",
            "a row has 'val' in column 'split'; give each one of train, validation, test",
        ),
        (
            "pool,x,target,split\na,1,1,train\na,1,1,test\nb,2,0,validation\nc,1,1,test",
            "pool 'a' is in two parts",
        ),
        ("pool,x,target\na,1", "2 cells in row 1 after the header, which has 3"),
    ],
)
def test_a_table_that_is_none(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        table_pools(path)


def test_the_mark_that_excel_writes_first_is_no_part_of_a_name(table, tmp_path):
    path = tmp_path / "excel.csv"
    path.write_text("\ufeff" + table.read_text())
    assert table_pools(path).sha256() == table_pools(table).sha256()


def test_a_table_in_the_columns_and_the_scale_of_another_one(table):
    scaling = Scaling(("size", "weight"), (1.0, 2.0), (4.0, 5.0))
    found, own = table_pools(table, scaling=scaling), table_pools(table)
    raw = own.train.inputs * np.array(own.scale) + np.array(own.centre)  # weight, size
    expected = (raw[:, ::-1] - np.array([1.0, 2.0])) / np.array([4.0, 5.0])
    np.testing.assert_allclose(found.train.inputs, expected, rtol=1e-4, atol=1e-4)
    assert found.columns == scaling.names and found.scale == scaling.scale
    with pytest.raises(ValueError, match="has no column 'height' of the training data"):
        table_pools(table, scaling=Scaling(("height",), (0.0,), (1.0,)))


def test_the_pools_of_the_run_itself_are_unchanged(table):
    """Also if a set has a user in several parts, as those that are divided by films."""
    found = table_pools(table)
    seen = Seen(found.sha256(), (identified(found.name, select_pools(found.test, [0])),))
    assert unseen_pools(found, seen) is found


def test_an_unknown_name_lists_the_known_ones():
    assert "fsmol" in known_pools()
    with pytest.raises(ValueError, match=r"unknown dataset 'fsmoll': neither a file nor .*fsmol"):
        load_pools("fsmoll")


def test_pools_of_training_are_not_tested(table):
    found = table_pools(table)
    some = identified(found.name, select_pools(found.test, [0, 2]))
    left = unseen_pools(found, Seen("", (some,)))
    assert left.test.names == tuple(np.delete(found.test.names, [0, 2]).tolist())
    assert "without the 2 pools" in left.protocol["split"]
    with pytest.raises(ValueError, match="trained or validated on all of its test pools"):
        unseen_pools(found, Seen("", (identified(found.name, found.test),)))


# --- baselines ----------------------------------------------------------------------------


def blobs(seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    inputs = (rng.normal(size=(40, 3)) + 2 * labels[:, None]).astype(np.float32)
    return inputs[:12], labels[:12], inputs[12:], labels[12:]


@pytest.mark.parametrize("make", [linear, random_forest, nearest_neighbours])
def test_baselines_learn_and_give_probabilities(make):
    inputs, labels, asked, truth = blobs()
    outputs = make(2)(inputs, labels, asked, 0)
    np.testing.assert_allclose(np.exp(outputs).sum(axis=1), 1, atol=1e-5)
    assert (outputs.argmax(axis=1) == truth).mean() > 0.8
    one_class = make(2)(inputs[:3], np.ones(3, int), asked, 0)
    np.testing.assert_allclose(np.exp(one_class), np.tile([0.2, 0.8], (28, 1)), rtol=1e-5)
    numbers = make(0)(inputs, inputs[:, :1], asked, 0)
    assert numbers.shape == (28, 1)
    assert np.corrcoef(numbers[:, 0], asked[:, 0])[0, 1] > 0.7
    np.testing.assert_array_equal(make(0)(inputs[:0], inputs[:0, :1], asked, 0), 0)


def test_the_random_forest_is_scikit_learn_s():
    inputs, labels, asked, _ = blobs()
    expected = RandomForestClassifier(100, random_state=3).fit(inputs, labels).predict_proba(asked)
    found = random_forest(2)(inputs, labels, asked, 3)
    np.testing.assert_allclose(np.exp(found), np.maximum(expected, 1e-6), rtol=1e-5)


def test_tanimoto_neighbours_by_hand():
    known = np.array([[1, 1, 0, 0], [0, 0, 2, 1]], np.float32)
    asked = np.array([[3, 0, 0, 0], [0, 1, 1, 1]], np.float32)
    # Similarities: 1/2 and 0; 1/4 and 2/3.
    found = tanimoto_neighbours()(known, np.array([1, 0]), asked, 0)
    expected = np.log([[0.5, 1.0], [2 / 3 + 0.5, 0.25 + 0.5]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_metrics_of_classes_and_of_numbers():
    outputs = np.log(np.array([[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32))
    found = class_metrics(outputs, Batch(None, np.array([1, 0, 0])))
    assert float(found["accuracy"]) == pytest.approx(2 / 3)
    assert float(found["auroc"]) == 1
    assert float(found["average_precision_gain"]) == pytest.approx(2 / 3)
    three = class_metrics(np.eye(3, dtype=np.float32), Batch(None, np.arange(3)))
    assert {*three} == {"accuracy"} and three["accuracy"] == 1
    of_numbers = number_metrics(np.zeros((2, 1)), Batch(None, np.array([[3.0], [4.0]])))
    assert of_numbers["mae"] == 3.5
    assert float(of_numbers["rmse"]) == pytest.approx(12.5**0.5)
