"""Packages whose public names load on first use, so that importing a package costs nothing."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package's `__init__` needs to export names without importing their modules.

    Submodules load on first use, too: `import univert` is enough for `univert.losses`.

    `package` is its `__name__`, `homes` names for each public name the module that defines it. What comes back are the
    package's `__getattr__`, `__dir__` and `__all__`.

    Example:
        >>> __getattr__, __dir__, __all__ = lazy_exports("univert.core", {"Run": "univert.core.run"})
        >>> __getattr__("Run").__name__, __all__
        ('Run', ['Run'])
    """
    names = sorted(homes)

    def load(name: str) -> Any:
        if name in homes:
            value = getattr(importlib.import_module(homes[name]), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def known_names() -> list[str]:
        submodules = pkgutil.iter_modules(sys.modules[package].__path__)
        return sorted({*names, *(module.name for module in submodules)})

    return load, known_names, names
