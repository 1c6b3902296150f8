"""The embedding network: base network, pooling, fully connected layers, L2 norm."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Embedder": "univert.models.embedder",
        "EmbedderConfig": "univert.models.config",
        "ModelCard": "univert.models.card",
        "TextTower": "univert.models.text_tower",
        "TextTowerConfig": "univert.models.text_tower",
    },
)
