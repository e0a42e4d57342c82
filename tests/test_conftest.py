"""The settings that every test relies on."""

import os
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"


@pytest.mark.skipif(os.environ["JAX_PLATFORMS"] != "cpu", reason="virtual devices are the CPU's")
def test_there_are_several_devices():
    assert jax.device_count() == 8


def test_ranks_are_not_promoted():
    with pytest.raises(ValueError, match="rank_promotion"):
        _ = jnp.zeros((2, 3)) + jnp.zeros(3)


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="an error here"):
        warnings.warn("an error here", stacklevel=1)


def test_float64_is_asked_for(x64):
    assert jnp.zeros(1).dtype == jnp.float64


def test_float32_is_the_default():
    assert jnp.zeros(1).dtype == jnp.float32


@pytest.mark.full
@pytest.mark.parametrize("variables_set", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_skip_for_missing_data_fails_where_the_data_should_be(
    pytester, monkeypatch, variables_set
):
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(
        test_data="""
        import pytest

        def test_of_data(omniglot_dir):
            pass

        def test_of_something_else():
            pytest.skip("needs a GPU")
        """,
        test_module="""
        import pytest

        pytest.skip("the data set is missing", allow_module_level=True)
        """,
    )
    for name in ("TFDS_DATA_DIR", "JAXMETA_DATA_DIR"):
        if variables_set:
            monkeypatch.setenv(name, str(pytester.path))
        else:
            monkeypatch.delenv(name, raising=False)
    result = pytester.runpytest_subprocess(
        "--import-mode=importlib", "--continue-on-collection-errors"
    )
    if variables_set:
        result.assert_outcomes(errors=2, skipped=1)
        result.stdout.fnmatch_lines(["*there is no omniglot/3.0.0*is a failure where*are set*"])
    else:
        result.assert_outcomes(skipped=3)
