"""A deployed model learns one more vertical, and the vectors in the index stay valid.

`growing` does it from end to end. `checks` says what it needs, and whether the result may be published; `learning` what
the grown model learns. `lineage` knows which models a run deployed one after the other, and loads neither PyTorch nor
weights.
"""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"deployed_model": "univert.training.grow.lineage", "grow": "univert.training.grow.growing"}
)
