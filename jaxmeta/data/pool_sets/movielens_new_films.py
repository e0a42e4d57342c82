"""MovieLens-1M: new users are asked about new films, which nobody has rated; see `ratings`."""

from pathlib import Path

from jaxmeta.data.pool_sets.dataset import PoolSet
from jaxmeta.data.pool_sets.movielens import movielens
from jaxmeta.data.pool_sets.registry import pool_source


@pool_source(
    "movielens_new_films", kind="regression", test_support=(0, 1, 2, 5, 10), train_support=(0, 10)
)
def movielens_new_films(folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """As `movielens`, with `new_films`."""
    return movielens(folder, seed, new_films=True)
