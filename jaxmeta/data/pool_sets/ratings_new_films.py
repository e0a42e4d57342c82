"""MovieTweetings: new users are asked about new films, which nobody has rated; see `ratings`."""

from pathlib import Path

from jaxmeta.data.pool_sets.dataset import PoolSet
from jaxmeta.data.pool_sets.ratings import ratings
from jaxmeta.data.pool_sets.registry import pool_source


@pool_source(
    "ratings_new_films", kind="regression", test_support=(0, 1, 2, 5, 10), train_support=(0, 10)
)
def ratings_new_films(folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """As `ratings`, with `new_films`."""
    return ratings(folder, seed, new_films=True)
