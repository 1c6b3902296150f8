"""From a query log to training data: what a query asks for."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"QueryParser": "univert.curation.query_parser"})
