"""From a model and an index to answers over HTTP. The public names load on first use."""

from __future__ import annotations

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Settings": "univert.serving.settings",
        "create_app": "univert.serving.app",
        "load_settings": "univert.serving.settings",
        "run_server": "univert.serving.server",
    },
)
