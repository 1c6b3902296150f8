"""Which verticals are trained together."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"Combination": "univert.training.combine.groups", "combine": "univert.training.combine.groups"}
)
