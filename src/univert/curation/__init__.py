"""From a query log to clean triplets: what queries ask for, what people say of triplets, and what follows from it."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Agreement": "univert.curation.agreement",
        "QueryParser": "univert.curation.query_parser",
        "krippendorff_alpha": "univert.curation.agreement",
    },
)
