"""Finding the items in a photo: the first stage of FIG. 5 of the unified-embedding paper.

`SsdDetector` is torchvision's SSD on any base network; `load_detector` runs it, or another, without PyTorch.
"""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Detector": "univert.detection.engine",
        "DetectorConfig": "univert.detection.config",
        "FoundItem": "univert.detection.engine",
        "PastingConfig": "univert.detection.pasting",
        "SsdDetector": "univert.detection.ssd",
        "load_detector": "univert.detection.engine",
        "pasted_scenes": "univert.detection.pasting",
    },
)
