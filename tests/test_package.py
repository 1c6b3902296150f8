from __future__ import annotations

import subprocess
import sys

import pytest

import univert

HEAVY = (
    "torch",
    "timm",
    "lance",
    "lancedb",
    "pyarrow",
    "faiss",
    "sklearn",
    "openTSNE",
    "numpy",
    "PIL",
    "pydantic",
)


@pytest.mark.parametrize("module", ["univert", "univert.cli"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_exported_name_exists() -> None:
    assert {"Catalogue", "Embedder", "Recipe", "train"} <= set(dir(univert))
    for name in univert.__all__:
        assert getattr(univert, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = univert.nothing
