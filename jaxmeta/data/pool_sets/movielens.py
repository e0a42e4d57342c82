"""MovieLens (Harper, Konstan 2015): ratings of films, as in `ratings`.

https://grouplens.org/datasets/movielens/1m/ has `ml-1m.zip`; its terms forbid redistribution and
commercial use. `ratings.dat` and `movies.dat` are in the folder `ml-1m` of `JAXMETA_DATA_DIR`.
"""

from pathlib import Path

from jaxmeta.data.cache import data_folder
from jaxmeta.data.pool_sets.dataset import PoolSet
from jaxmeta.data.pool_sets.ratings import SUPPORTS, ratings_set, read_ratings
from jaxmeta.data.pool_sets.registry import pool_source


@pool_source("movielens_new_films", **SUPPORTS)
def movielens_new_films(folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """As `movielens`, with `new_films`."""
    return movielens(folder, seed, new_films=True)


@pool_source("movielens", **SUPPORTS)
def movielens(
    folder: str | Path | None = None, seed: int = 0, *, new_films: bool = False
) -> PoolSet:
    """Reads MovieLens-1M from `folder`; see the module.

    Args:
      folder: has `ratings.dat` and `movies.dat`.
      seed: of the division of the users.
      new_films: as in `ratings_set`.

    Raises:
      OSError, ValueError: a file is missing or damaged; there are too few users.
    """
    place = data_folder("ml-1m", folder)
    found = read_ratings(place / "ratings.dat", place / "movies.dat", "latin-1")
    return ratings_set(found, "movielens", seed, new_films=new_films)._replace(
        licence="GroupLens: no redistribution, no commercial use",
        source="https://grouplens.org/datasets/movielens/1m/",
    )
