"""Settings of every test and docstring example, and the fixtures they share."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX is imported; subprocesses inherit it
if version("jaxlib").startswith("0.10."):
    # Compiling takes most of the suite's time, and twice as much with XLA's newer way to emit
    # code for the CPU. Later releases have no such flag and refuse to start with it.
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    ).strip()

import hypothesis
import jax
import pytest

from jaxmeta.data.cache import cache_folder

pytest_plugins = ["pytester"]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests run small programs once: compiling them less well takes half the time.
jax.config.update("jax_disable_most_optimizations", True)
# A second run of the suite finds its programs compiled, and so do the processes that it starts.
# What is traced, and how often, stays.
_COMPILED = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled-tests")
)
jax.config.update("jax_compilation_cache_dir", _COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # the many small ones count

hypothesis.settings.register_profile("jaxmeta", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxmeta")

gc.freeze()
gc.set_threshold(50_000, 20, 50)  # tracing makes many small objects: collect less often

DATA_VARIABLES = ("TFDS_DATA_DIR", "JAXMETA_DATA_DIR")


def resident_bytes() -> int:
    """The memory of this process; 0 where the system doesn't tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


_PROGRAM_BYTES = 2**29  # a test process may grow by so much before it drops its programs
_after_drop = resident_bytes()


@pytest.fixture(autouse=True)
def _room_for_programs():
    """Compiled programs pile up; those that are still needed come back from the cache on disk."""
    global _after_drop
    yield
    if resident_bytes() > _after_drop + _PROGRAM_BYTES:
        jax.clear_caches()
        gc.collect()
        _after_drop = resident_bytes()


@pytest.fixture
def x64():
    """Arrays are float64 by default within the test."""
    with jax.enable_x64(True):
        yield


def _folder(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"needs real data: {variable} is not set")
    return Path(os.environ[variable])


@pytest.fixture(scope="session")
def tfds_dir() -> Path:
    """The folder of prepared TFDS sets."""
    return _folder("TFDS_DATA_DIR")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of raw data sets."""
    return _folder("JAXMETA_DATA_DIR")


@pytest.fixture(scope="session")
def omniglot_dir(tfds_dir: Path) -> Path:
    """Omniglot 3.0.0 as TFDS prepares it."""
    folder = tfds_dir / "omniglot" / "3.0.0"
    if not folder.is_dir():
        pytest.skip("needs real data: there is no omniglot/3.0.0 in TFDS_DATA_DIR")
    return folder


_SHORT_NOTEBOOKS = ("1_", "4_")


def pytest_itemcollected(item):
    if item.path.suffix == ".ipynb":
        item.add_marker(pytest.mark.full)
        if not item.path.name.startswith(_SHORT_NOTEBOOKS):
            item.add_marker(pytest.mark.slow)
        if item.path.name.startswith("13_"):  # reads FS-Mol
            missing = "JAXMETA_DATA_DIR" not in os.environ
            reason = "needs real data: JAXMETA_DATA_DIR is not set"
            item.add_marker(pytest.mark.skipif(missing, reason=reason))


def _fail_if_data_should_be_there(report):
    """A skip for missing data is a failure on a machine that says it has the data."""
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        path, line, reason = report.longrepr
        if "data" in reason.lower() and all(name in os.environ for name in DATA_VARIABLES):
            report.outcome = "failed"
            report.longrepr = (
                f"{path}:{line}: {reason}. A skip for missing data is a failure where "
                f"{' and '.join(DATA_VARIABLES)} are set."
            )
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _fail_if_data_should_be_there((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _fail_if_data_should_be_there((yield))
