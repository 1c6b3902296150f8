"""From a query log to clean triplets: queries read, pictures rated, triplets made and judged."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "OverlayRater": "univert.curation.overlaid_text",
        "PictureMatch": "univert.curation.picture_match",
        "PixelLimits": "univert.curation.pixel_quality",
        "TextTower": "univert.curation.text_tower",
        "TextTowerConfig": "univert.curation.text_tower",
        "rate_pixels": "univert.curation.pixel_quality",
    },
)
