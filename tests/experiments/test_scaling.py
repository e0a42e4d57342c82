"""The figures of scaling are measured and whole."""

import json

import pytest

from experiments.scaling import Scaling, scaling


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("pipelines", {"device", "stream"}),
        ("processes", {"1", "2"}),
    ],
)
@pytest.mark.slow
def test_the_figures_are_whole(what, names, tmp_path, capsys):
    out = tmp_path / "scaling.json"
    options = Scaling(what, dataset="glyphs", tasks=2, steps=1, rounds=1, out=out)
    scaling(options)
    written = json.loads(out.read_text())
    speed = written[what]["tasks_per_second"]
    assert speed.keys() == names
    assert min(speed.values()) > 0
    first, second = speed.values()
    assert list(written[what].values())[-1] == pytest.approx(second / first)
    assert f"ratio: {second / first:.2f}" in capsys.readouterr().out


def test_more_processes_than_cores():
    with pytest.raises(ValueError, match="1000 processes on"):
        scaling(Scaling("processes", processes=1000))
