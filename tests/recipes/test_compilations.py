"""How many programs a run compiles until its first progress: each costs a tenth of a second."""

import contextlib

import jax
import pytest

from jaxmeta.recipes import find_domain, find_learner, start
from jaxmeta.recipes.loading import run_keys
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.runner import run

COMPILED = "/jax/core/compile/backend_compile_duration"


class Reported(Exception):
    """Stops the run at its first progress."""


class FirstProgress(Progress):
    @contextlib.contextmanager
    def training(self, name, steps):
        def report(step, scalars):
            raise Reported

        yield report


@pytest.mark.full
def test_few_programs_before_the_first_progress(tmp_path):
    small = {"network": "mlp", "ways": 2, "train_queries": 1, "task_batch": 1, "steps": 2}
    experiment = start(find_domain("few-shot"), find_learner("maml")).changed(**small)
    compiled = []

    def listen(event, seconds, **known):
        if event == COMPILED:
            compiled.append(known.get("fun_name"))

    jax.clear_caches()  # of other tests; those on disk count as compiled
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with pytest.raises(Reported):
            run(experiment, tmp_path / "run", progress=FirstProgress(quiet=True))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    # The steps and the initialisation; the rest are small, such as keys and copies to the device.
    assert 2 <= len(compiled) <= 14, compiled


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_keys_of_a_run(seed):
    expected = jax.random.split(jax.random.key(seed), 3)
    for key, own in zip(run_keys(seed), expected, strict=True):
        assert (jax.random.key_data(key) == jax.random.key_data(own)).all()
