"""The index of a catalogue: made, kept up to date, and searched by distance and by column."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Hit": "univert.search.records",
        "Index": "univert.search.index",
        "IndexReader": "univert.search.reader",
        "IndexWriter": "univert.search.writer",
        "Picture": "univert.search.records",
        "add_vertical_to_index": "univert.search.indexing",
        "check_recall": "univert.search.exact",
        "index_catalogue": "univert.search.indexing",
        "search_image": "univert.search.index",
    },
)
