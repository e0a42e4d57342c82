"""The speed of meta-updates of policies, beside a peer in a process of its own."""

import sys
from pathlib import Path

import pytest

from experiments.control_speed import CONFIG, PEER, ControlSpeed, measure, peer_turn
from jaxmeta import files

SLEEPS = """
import sys, time
config = open(sys.argv[sys.argv.index("--config") + 1]).read()
time.sleep(0.2 * int(config.split()[-1]))
"""


@pytest.fixture
def peer(tmp_path):
    folder = tmp_path / "peer"
    (folder / CONFIG).parent.mkdir(parents=True)
    (folder / CONFIG).write_text("num-batches: 500\n")
    (folder / "train.py").write_text(SLEEPS)
    return folder


def test_a_peer_is_timed_without_its_start(peer):
    seconds = peer_turn(Path(sys.executable), peer, 4)()
    assert 0.1 < seconds < 0.4  # 0.2 s an update


@pytest.mark.slow
def test_the_figures_of_a_machine(peer, tmp_path):
    out = tmp_path / "control.json"
    options = ControlSpeed(peer=(Path(sys.executable), peer), rounds=1, updates=1, out=out)
    found = measure(options)
    rows = found["meta_updates"]
    assert files.read_json(out)["meta_updates"] == rows
    assert rows.keys() > {PEER, "navigation, ProMP"}
    for name, row in rows.items():
        assert row["environment_steps"] == 80_000
        assert row["seconds"] * row["environment_steps_per_second"] == pytest.approx(80_000)
        assert ("ratio_to_peer" in row) == name.startswith("navigation")
    assert rows[PEER]["ratio_to_peer"] == 1
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="holds another result"):
        measure(ControlSpeed(out=tmp_path / "other.json"))
