"""Tables of architectures: the published ones, and files that are damaged."""

import lzma

import numpy as np
import pytest

from jaxmeta.architecture import CELL_OPERATIONS
from jaxmeta.data.architectures import nasbench_201, nasbench_macro, row_of


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress("\n".join(lines).encode()))


@pytest.mark.usefixtures("data_dir")
def test_nas_bench_201():
    """Figures of the published table: its best cells, and that of skip connections alone."""
    table = nasbench_201()
    assert table.searched.shape == (5**6,)
    best = {name: round(100 * float(own.max()), 2) for name, own in table.tests.items()}
    assert best == {"cifar10": 94.37, "cifar100": 73.51, "imagenet16": 47.31}
    skips = np.full(6, CELL_OPERATIONS.index("skip_connect"))
    row = row_of(skips, 5)
    assert table.text(skips) == (
        "|skip_connect~0|+|skip_connect~0|skip_connect~1|+"
        "|skip_connect~0|skip_connect~1|skip_connect~2|"
    )
    assert 100 * table.tests["cifar10"][row] < 80
    # A row of the file.
    found = np.array([4, 2, 1, 2, 1, 1])
    assert table.searched[row_of(found, 5)] == pytest.approx(0.63364)
    assert table.tests["cifar10"][row_of(found, 5)] == pytest.approx(0.858633)


@pytest.mark.usefixtures("data_dir")
def test_nas_bench_macro():
    table = nasbench_macro()
    assert table.searched.shape == (3**8,)
    assert round(100 * float(table.searched.max()), 2) == 93.13
    assert table.searched[0] == pytest.approx(0.453633)
    assert table.text(np.array([0, 0, 0, 0, 0, 0, 0, 1])) == "00000001"


def test_damaged_tables_are_refused(tmp_path):
    path = tmp_path / "nasbench_macro_cifar10.csv.xz"
    with pytest.raises(FileNotFoundError, match="set JAXMETA_DATA_DIR"):
        nasbench_macro(data_dir=tmp_path)
    write(path, "arch,mean_acc", "00000000,45.0")
    with pytest.raises(ValueError, match="lacks 6560 of 6561 networks"):
        nasbench_macro(data_dir=tmp_path)
    write(path, "arch,mean_acc", "0000000,45.0")
    with pytest.raises(ValueError, match="the architecture 0000000"):
        nasbench_macro(data_dir=tmp_path)
    write(path, "arch,accuracy", "00000000,45.0")
    with pytest.raises(ValueError, match="not a table of networks"):
        nasbench_macro(data_dir=tmp_path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a table of networks"):
        nasbench_macro(data_dir=tmp_path)
    with pytest.raises(ValueError, match="not 'mnist'"):
        nasbench_201("mnist")
