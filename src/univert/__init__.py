"""Univert: one embedding model for a catalogue with many product verticals.

The public names load on first use, so that `import univert` stays instant.
"""

from univert.core.lazy import lazy_exports

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "BadInputError": "univert.core.errors",
        "Catalogue": "univert.data.catalogue",
        "Embedder": "univert.models.embedder",
        "EmbedderConfig": "univert.models.config",
        "Recipe": "univert.training.recipe",
        "UnivertError": "univert.core.errors",
        "train": "univert.main_job",
    },
)
