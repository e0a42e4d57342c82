"""Tables by name and from files, and tables as pools of one shape."""

import numpy as np
import pytest

from jaxmeta.data import whole_pools
from jaxmeta.data.labelled_tables import Table, load_tables, tables_as_pools

INPUTS = np.arange(24.0).reshape(12, 2)
CLASSES = np.arange(12) % 3


def test_files_of_every_form(tmp_path):
    np.savez(tmp_path / "a.npz", X=INPUTS, y=CLASSES[:, None])
    (tmp_path / "b.csv").write_text("height,kind,width\n1,oak,\n2,elm,4\n3,oak,5\n")
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match="no column 'target'.*height, kind, width"):
        load_tables(tmp_path)
    found = load_tables(tmp_path, target_column="kind")
    assert [*found] == ["a", "b"]
    np.testing.assert_array_equal(found["a"].targets, CLASSES)
    assert found["b"].targets.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(found["b"].inputs, [[1, np.nan], [2, 4], [3, 5]])
    assert [*load_tables(tmp_path / "a.npz")] == ["a"]


def test_damaged_files_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", X=INPUTS)
    with pytest.raises(ValueError, match=r"a.npz has no arrays X and y"):
        load_tables(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", X=INPUTS[:, 0], y=CLASSES)
    with pytest.raises(ValueError, match="give rows and columns"):
        load_tables(tmp_path / "a.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no .npz, .csv or .parquet file"):
        load_tables(tmp_path / "empty")


def test_the_classical_sets(data_dir):
    found = load_tables()
    assert {"iris", "wine", "breast_cancer", "29_Pima"} <= {*found}
    assert found["29_Pima"].inputs.shape == (768, 8)
    pools, left_out = tables_as_pools(found, columns=60, classes=10, rows=1000)
    assert len(pools.names) == 20 and {*left_out} == {"17_InternetAds", "25_musk", "5_campaign"}
    assert pools.counts.max() <= 1010
    skin = pools.targets[pools.places(pools.names.index("33_skin"))]
    assert skin.mean() == pytest.approx(50859 / 245057, abs=0.01)


def test_the_data_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"put the .npz files of https://github.com"):
        load_tables()


def test_tables_of_several_shapes_share_one():
    narrow = Table(np.ones((4, 1), np.float32), np.array([0, 1, 0, 1], np.int32))
    wide = Table(np.ones((30, 9), np.float32), np.arange(30, dtype=np.int32) % 2)
    long = Table(np.ones((90, 3), np.float32), (np.arange(90) % 10 == 0).astype(np.int32))
    one = Table(np.ones((5, 2), np.float32), np.zeros(5, np.int32))
    tables = {"narrow": narrow, "wide": wide, "long": long, "one": one}
    pools, left_out = tables_as_pools(tables, columns=4, classes=3, rows=30)
    assert left_out == {"wide": "9 columns, 2 classes", "one": "2 columns, 1 classes"}
    assert dict(zip(pools.names, pools.counts.tolist())) == {"long": 30, "narrow": 4}
    assert np.isnan(pools.inputs).sum(axis=1).tolist() == [3] * 4 + [1] * 30
    assert pools.targets[pools.places(0)].sum() == 3
    with pytest.raises(ValueError, match="no table has at most 4 columns"):
        tables_as_pools({"wide": wide}, columns=4, classes=3, rows=30)


def test_small_pools_have_smaller_supports():
    tables = {"a": Table(INPUTS.astype(np.float32), CLASSES.astype(np.int32) % 2)}
    tables["b"] = Table(np.ones((40, 2), np.float32), np.arange(40, dtype=np.int32) % 2)
    pools, _ = tables_as_pools(tables, columns=2, classes=2, rows=100)
    found = whole_pools(pools, support=8, draws=3, order="stratified", share=0.5, shapes=1)
    sizes = {}
    for stream in found.source.streams:
        for index in range(len(stream.tasks)):
            task = stream.tasks[index]
            assert task.support.mask.shape == (3, 8)
            rows = int(task.support.mask[0].sum()), int(task.query.mask[0].sum())
            sizes[pools.names[found.pools[len(sizes)]]] = rows
    assert sizes == {"a": (6, 6), "b": (8, 32)}
    assert len(whole_pools(pools, support=14, share=0.5).pools) == 2
    assert len(whole_pools(pools, support=14).pools) == 1
