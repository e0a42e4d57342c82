"""The search step of DARTS against the same step in PyTorch."""

from importlib.util import find_spec

import numpy as np
import pytest

from experiments.architecture_tables import search_speed_table
from experiments.search_speed import SearchSpeed, check_agreement, measure
from jaxmeta import files

SMALL = {"width": 2, "batch_size": 6, "image_size": 8, "rounds": 1, "steps": 2}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is only for comparison")
@pytest.mark.parametrize("order", ["first-order", "second-order"])
def test_both_take_the_same_steps(order, tmp_path):
    out = tmp_path / "search-speed-cpu" / "search-speed.json"
    out.parent.mkdir()
    found = measure(SearchSpeed(differentiation=(order,), out=out, **SMALL))
    assert files.read_json(out)["search_steps"] == found["search_steps"]
    row = found["search_steps"][order]
    speeds = row["images_per_second"]
    assert row["ratio_to_torch"] == pytest.approx(speeds["jaxmeta"] / speeds["torch"])
    assert row["largest_difference"]["loss"] < 1e-4
    line = search_speed_table(tmp_path).splitlines()[-1]
    assert line.startswith(f"| [{order}]") and line.endswith(f"{row['ratio_to_torch']:.2f} |")


def test_another_search_is_not_measured():
    class State:
        meta_params = np.zeros((6, 5))

    class Peer:
        take = staticmethod(lambda: 2.0)
        logits = staticmethod(lambda: np.zeros((6, 5)))

    losses = np.array([2.0, 2.0])
    assert check_agreement(losses, State, Peer) == {"loss": 0.0, "logits": 0.0}  # pyright: ignore
    with pytest.raises(ArithmeticError, match="the search in PyTorch is another one"):
        check_agreement(losses + 0.1, State, Peer)  # pyright: ignore
    Peer.logits = staticmethod(lambda: np.full((6, 5), 3e-4))
    with pytest.raises(ArithmeticError, match="another one"):
        check_agreement(losses, State, Peer)  # pyright: ignore
