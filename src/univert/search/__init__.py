"""The index of a catalogue: made, kept up to date, and searched by distance and by column."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Hit": "univert.search.query",
        "Index": "univert.search.index",
        "IndexReader": "univert.search.index",
        "IndexWriter": "univert.search.writer",
        "Picture": "univert.search.query",
        "add_vertical_to_index": "univert.search.indexing",
        "check_recall": "univert.search.exact",
        "index_catalogue": "univert.search.indexing",
    },
)
