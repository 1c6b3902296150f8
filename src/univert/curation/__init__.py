"""From a query log to clean triplets: what queries ask for, which pictures answer them, and what people say of both."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Agreement": "univert.curation.agreement",
        "OverlayRater": "univert.curation.overlaid_text",
        "PictureMatch": "univert.curation.picture_match",
        "QueryParser": "univert.curation.query_parser",
        "krippendorff_alpha": "univert.curation.agreement",
        "rate_pixels": "univert.curation.pixel_quality",
    },
)
