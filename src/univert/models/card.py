"""The model card: what a model was made from, how, and how good it was measured to be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_FRONT_MATTER = """---
library_name: univert
pipeline_tag: image-feature-extraction
tags:
- visual-search
---
"""
_USE = """```python
import univert

model = univert.Embedder.from_pretrained("path/to/this/folder")
vectors = model.embed(["photo.jpg"])
```"""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a reader of a model's folder should know; written to its README.md.

    Attributes:
        name: what the model is called.
        recipe_toml: the resolved recipe it was trained with; empty if it was not trained.
        catalogue_fingerprint: of the catalogue it was trained on; None if it was not trained.
        verticals: names of the verticals it was trained on.
        figures: measured figures, from a name to a number (shown with three decimals) or a text.
    """

    name: str = "Univert embedding model"
    recipe_toml: str = ""
    catalogue_fingerprint: str | None = None
    verticals: Sequence[str] = ()
    figures: Mapping[str, float | int | str] = field(default_factory=dict)

    def to_markdown(self, config: Mapping[str, Any]) -> str:
        """The card as Markdown with the front matter that model hubs read.

        Args:
            config: the model's configuration as plain values.
        """
        header = _FRONT_MATTER
        parts = [
            header + f"\n# {self.name}",
            "An image embedding model made with Univert. It maps an "
            f"image of a product to {_width(config)}; near vectors mean similar products. "
            "Its preprocessing is part of it.",
            f"## Use\n\n{_USE}",
            f"## Data\n\n{self._data()}",
            f"## Measured figures\n\n{self._figures()}",
            f"## Configuration\n\n```json\n{json.dumps(config, indent=2)}\n```",
            f"## Recipe\n\n{self._recipe()}",
        ]
        return "\n\n".join(parts) + "\n"

    def _data(self) -> str:
        if self.catalogue_fingerprint is None:
            return "None: the base network's own weights, and no trained head."
        names = ", ".join(self.verticals) or "not stated"
        verticals = f"- verticals ({len(self.verticals)}): {names}"
        return f"{verticals}\n- catalogue fingerprint: `{self.catalogue_fingerprint}`"

    def _figures(self) -> str:
        if not self.figures:
            return "None were measured."
        rows = [
            f"| {_cell(name)} | {format(value, '.3f') if isinstance(value, float) else _cell(str(value))} |"
            for name, value in self.figures.items()
        ]
        return "\n".join(["| figure | value |", "|---|---|", *rows])

    def _recipe(self) -> str:
        return f"```toml\n{self.recipe_toml.strip()}\n```" if self.recipe_toml.strip() else "None: not trained."


def _width(config: Mapping[str, Any]) -> str:
    size = config.get("size")
    return f"a unit vector of {size} numbers" if size else "a unit vector of the base network's pooled features"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
