"""Sets of pools: assays of molecules, users, stocks, and tables of your own."""

from jaxmeta.data.pool_sets.dataset import (
    PoolSet,
    class_metrics,
    number_metrics,
    unseen_pools,
)
from jaxmeta.data.pool_sets.registry import (
    Description,
    describe_pools,
    known_pools,
    load_pools,
    pool_source,
)

__all__ = [
    "Description",
    "PoolSet",
    "class_metrics",
    "describe_pools",
    "known_pools",
    "load_pools",
    "number_metrics",
    "pool_source",
    "unseen_pools",
]
