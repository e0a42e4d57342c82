"""What can't fit the machine is refused by its shapes, before anything is allocated."""

import jax
import jax.numpy as jnp
import pytest

from jaxmeta.training import memory
from jaxmeta.training.memory import TooLarge, check_fits, check_program_fits


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 1000)


def test_all_arrays_together_count(small_machine):
    vector = jax.ShapeDtypeStruct((100,), jnp.float32)
    check_fits("parameters", {"a": vector}, vector)
    with pytest.raises(TooLarge, match="at least 1.17 KiB, but only 1e?.* of memory") as told:
        check_fits("parameters", {"a": vector, "b": vector}, vector)
    assert told.value.shape == (100,)


def test_an_array_within_a_program_counts(small_machine):
    def within_a_loop(x):
        return jax.lax.scan(
            lambda carry, _: ((carry[:, None] * carry[None]).sum(0), None), x, length=2
        )

    assert check_program_fits("it", within_a_loop, jnp.ones(4))[0].shape == (4,)
    with pytest.raises(TooLarge, match="a result of .*, of the shape .16, 16"):
        check_program_fits("it", within_a_loop, jnp.ones(16))


@pytest.mark.parametrize(
    ("domain", "options", "named"),
    [
        ("few-shot", "--network conv4-stride --width 10000000", "--width 10000000"),
        ("few-shot", "--task-batch 2000000000", "--task-batch 2000000000"),
        ("regression", "--hidden 100000000000", "--hidden 100000000000"),
        ("regression", "--shots 2000000000", "--shots 2000000000"),
        (
            "sequence",
            "ntm --bits 3 --lengths 1 3 --test-lengths 3 5 --slots 2000000000",
            "--slots 2000000000",
        ),
        ("sequence", "lstm --width 10000000", "--width 10000000"),
    ],
)
def test_an_option_that_makes_a_program_too_large_is_named(
    domain, options, named, tiny, status, capsys, tmp_path
):
    line = [] if domain == "sequence" else tiny(domain)
    assert status(domain, *line, *options.split(), "--out", tmp_path / "run") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert "of memory" in told
    assert named in told
    assert not (tmp_path / "run").exists()
