"""The memory of commands and of a training is measured in processes of their own."""

import sys

import pytest

from experiments import resident
from experiments.contestants import peak_resident
from experiments.resident import Resident, growth, measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


@pytest.mark.full
def test_memory_after_updates():
    taken = growth(10)
    assert list(taken) == [str(step) for step in range(1, 11)]
    assert all(2**26 < own < 2**34 for own in taken.values())


@pytest.mark.full
def test_a_process_of_its_own():
    """Its peak is not that of this process, and its errors come back."""
    block = bytearray(2**29)
    block[::4096] = b"x" * len(block[::4096])  # resident
    assert 2**26 < resident._in_a_process(peak_resident) < peak_resident() - 2**27
    with pytest.raises(ValueError, match="invalid literal"):
        resident._in_a_process(int, "word")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": ("nosuch",)}, "unknown command 'nosuch'; choose from few-shot"),
        ({"updates": 25}, "--updates is 25: give a multiple of 10"),
    ],
)
def test_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        measure(Resident(out=tmp_path / "resident.json", **options))
