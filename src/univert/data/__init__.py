"""Catalogues: reading, checking, splitting, decoding, sampling."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Augmentation": "univert.data.transforms",
        "Catalogue": "univert.data.catalogue",
        "ImageLoader": "univert.data.loading",
        "PKSampler": "univert.data.samplers",
        "Preprocessing": "univert.data.transforms",
        "SourceRow": "univert.data.rows",
        "StrongNegativeSampler": "univert.data.samplers",
        "UniformSampler": "univert.data.samplers",
        "build_catalogue": "univert.data.build",
        "catalogue_info": "univert.data.info",
        "decode_rgb": "univert.data.decode",
        "keep_brands_out_of_train": "univert.data.unseen_brands",
        "open_dataset": "univert.data.readers",
        "open_source": "univert.data.readers",
    },
)
