"""Proxies: learned points that stand for products, and who belongs to which. `docs/proxies.md` tells more."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DynamicAssignment": "univert.proxies.dynamic",
        "ProxyBank": "univert.proxies.bank",
        "StaticAssignment": "univert.proxies.assignment",
        "forget_rows": "univert.proxies.dynamic",
        "measure_bounds": "univert.proxies.bounds",
        "monitor_points": "univert.proxies.bounds",
        "nearest_proxies": "univert.proxies.dynamic",
        "start_from_points": "univert.proxies.dynamic",
    },
)
