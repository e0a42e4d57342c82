"""Sets of pools: assays of molecules, users, stocks, and tables of your own."""

from jaxmeta.data.pool_sets.anomaly_scores import anomaly_scores
from jaxmeta.data.pool_sets.dataset import (
    Drawing,
    PoolSet,
    class_metrics,
    number_metrics,
    unseen_pools,
)
from jaxmeta.data.pool_sets.forecasts import Tested, diebold_mariano, kupiec
from jaxmeta.data.pool_sets.registry import (
    Description,
    describe_pools,
    known_pools,
    load_pools,
    pool_source,
)

__all__ = [
    "Description",
    "Drawing",
    "PoolSet",
    "Tested",
    "anomaly_scores",
    "class_metrics",
    "describe_pools",
    "diebold_mariano",
    "known_pools",
    "kupiec",
    "load_pools",
    "number_metrics",
    "pool_source",
    "unseen_pools",
]
