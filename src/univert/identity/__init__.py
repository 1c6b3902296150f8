"""What a photo shows, named from its neighbours by a calibrated vote."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "AttributeCalibration": "univert.identity.vote",
        "Calibration": "univert.identity.vote",
        "calibrate": "univert.identity.calibration",
        "find_calibration": "univert.identity.vote",
        "identify": "univert.identity.vote",
    },
)
