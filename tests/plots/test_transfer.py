"""Pictures of transfer: the matrix, reliability diagrams, risk over coverage."""

import numpy as np
import pytest

from jaxmeta import plots


def test_the_matrix_shows_every_value_and_the_own_sets(tmp_path):
    means = np.array([[0.9, 0.5, np.nan], [0.8, 0.6, 0.3]])
    own = np.array([[True, False, False], [False, True, False]])
    path = tmp_path / "matrix.png"
    figure = plots.transfer_matrix(
        path, ["maml", "r2d2"], ["glyphs", "grocery", "scans"], means, means / 50, own, title="5w1s"
    )
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["90.0 ± 1.8", "50.0 ± 1.0", "80.0 ± 1.6", "60.0 ± 1.2", "30.0 ± 0.6"]
    frames = [patch.get_xy() for patch in axes.patches]
    assert np.round(frames).tolist() == [[0, 0], [1, 1]]
    with pytest.raises(ValueError, match="2 rows and 2 columns"):
        plots.transfer_matrix(path, ["a", "b"], ["c", "d"], means, means, own, title="")


def test_reliability_is_accuracy_over_probability(tmp_path):
    sums = np.array([4.0, 0.0, 10.0]), np.array([1.0, 0.0, 9.0]), np.array([2.0, 0.0, 5.0])
    names = [f"run {number}" for number in range(5)]
    path = tmp_path / "reliability.png"
    curves = {"before": sums, "after": sums}
    figure = plots.reliability_diagrams(path, dict.fromkeys(names, curves), title="scans")
    assert path.read_bytes().startswith(b"\x89PNG")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == names
    _, before, _ = panels[0].lines  # after the diagonal; the empty bin is left out
    assert before.get_xdata().tolist() == [0.25, 0.9]
    assert before.get_ydata().tolist() == [0.5, 0.5]


def test_thresholds_without_an_answer_are_left_out(tmp_path):
    coverage, risk = np.array([1.0, 0.98, 0.5, 0.0]), np.array([0.2, 0.19, 0.1, 0.0])
    path = tmp_path / "risk.png"
    figure = plots.risk_over_coverage(
        path, np.array([0.0, 0.5, 0.9, 0.99]), coverage, risk, title="maml"
    )
    (axes,) = figure.axes
    assert axes.lines[0].get_xdata().tolist() == [1.0, 0.98, 0.5]
    assert [text.get_text() for text in axes.texts] == ["0", "0.9"]
