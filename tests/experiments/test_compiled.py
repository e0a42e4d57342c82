"""The compiled meta-updates have no more operations and memory than recorded."""

import jax
import pytest

from experiments.compiled import PROGRAMS, Compiled, figures, grown, measure
from experiments.speed_tables import RESULTS
from experiments.workloads import WORKLOADS
from jaxmeta import files

RECORDED = files.read_json(RESULTS / "compiled-cpu" / "compiled.json")


def minor(version):
    return version.split(".")[:2]


# Another version of XLA optimises otherwise; what JAX gives it is compared in any version.
SAME_COMPILER = minor(jax.__version__) == minor(RECORDED["versions"]["jax"])


@pytest.mark.full
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the figures are of programs for CPUs")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_not_grown(name):
    found = figures(WORKLOADS[name], optimised=SAME_COMPILER)
    assert grown(RECORDED["programs"][name], found) == []


def test_growth_is_told():
    programs = RECORDED["programs"]
    assert grown(programs["sinusoid-10-steps"], programs["sinusoid-1-step"]) == []
    told = " ".join(grown(programs["sinusoid-1-step"], programs["sinusoid-10-steps"]))
    for name in ("dot (instructions)", "while (instructions)", "all", "temporary_bytes"):
        assert name in told
    assert "flops" not in told  # 8 % more: XLA counts a loop once
    one = programs["stride-2"]
    products = one["source"]["dot_general"]
    more = {**one, "source": {**one["source"], "dot_general": products + 1}}
    assert grown(one, more) == [f"dot_general (source): {products + 1}, recorded {products}"]
    assert grown(one, {"source": more["source"]}) == grown(one, more)


def test_an_unknown_program(tmp_path):
    with pytest.raises(ValueError, match="unknown program 'nosuch'; choose from sinusoid-1-step"):
        measure(Compiled(program=("nosuch",), out=tmp_path / "compiled.json"))
