"""Errors, configuration, files, run folders, tensors, progress: imports nothing of ours."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "BadInputError": "univert.core.errors",
        "Run": "univert.core.run",
        "TrainingError": "univert.core.errors",
        "UnivertError": "univert.core.errors",
    },
)
