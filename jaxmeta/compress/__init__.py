"""Smaller learners: transformations of the trained parameters of any learner.

    from jaxmeta.compress import dequantised, pruned, quantised, stored_bytes

    run = jaxmeta.pretrained("prototypical-omniglot")
    small = quantised(run.meta_params)
    adapted = run.learner.adapt(key, dequantised(small), support)

The *weights* of a learner are the float arrays with two axes or more, such as kernels of
convolutions and dense layers. All other leaves (biases, scales, shifts) are unchanged. Computation
is done with expanded weights: only the stored size shrinks, not the time. To make a learner
faster, train a narrower one with `distilled`.
"""

from jaxmeta.compress._distillation import distilled
from jaxmeta.compress._pruning import Pruning, gradual_pruning, pruned, sparsity_schedule
from jaxmeta.compress._quantisation import Quantised, dequantised, in_bfloat16, quantised
from jaxmeta.compress._size import stored_bytes

__all__ = [
    "Pruning",
    "Quantised",
    "dequantised",
    "distilled",
    "gradual_pruning",
    "in_bfloat16",
    "pruned",
    "quantised",
    "sparsity_schedule",
    "stored_bytes",
]
