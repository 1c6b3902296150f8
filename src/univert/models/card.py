"""The model card: what a model was made from, how, and how good it was measured to be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

_CARD = """---
library_name: univert
pipeline_tag: {task}
tags:
- visual-search
---

# {name}

{about} Its preprocessing is part of it.

## Use

```python
{use}
```

## Data

{data}

## Measured figures

{figures}

## Configuration

```json
{config}
```

## Recipe

{recipe}
"""


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

    TASK: ClassVar[str] = "image-feature-extraction"
    ABOUT: ClassVar[str] = (
        "An image embedding model made with Univert. It maps an image of a product to a unit vector of {width}; near "
        "vectors mean\nsimilar products."
    )
    USE: ClassVar[str] = """import univert

model = univert.Embedder.from_pretrained("path/to/this/folder")
vectors = model.embed(["photo.jpg"])"""
    name: str = "Univert embedding model"
    recipe_toml: str = ""
    catalogue_fingerprint: str | None = None
    verticals: Sequence[str] = ()
    figures: Mapping[str, float | int | str] = field(default_factory=dict)

    def to_markdown(self, config: Mapping[str, Any]) -> str:
        """The card as Markdown with the front matter that model hubs read; `config` is the model's, as plain values."""
        data = "None: the base network's own weights; nothing was trained."
        if self.catalogue_fingerprint is not None:
            names = ", ".join(self.verticals) or "not stated"
            data = (
                f"- verticals ({len(self.verticals)}): {names}\n- catalogue fingerprint: `{self.catalogue_fingerprint}`"
            )
        rows = [
            f"| {_cell(name)} | {format(value, '.3f') if isinstance(value, float) else _cell(str(value))} |"
            for name, value in self.figures.items()
        ]
        recipe = self.recipe_toml.strip()
        width = f"{config['size']} numbers" if config.get("size") else "the base network's pooled features"
        return _CARD.format(
            task=self.TASK,
            name=self.name,
            about=self.ABOUT.format(width=width),
            use=self.USE,
            data=data,
            figures="\n".join(["| figure | value |", "|---|---|", *rows]) if rows else "None were measured.",
            config=json.dumps(config, indent=2),
            recipe=f"```toml\n{recipe}\n```" if recipe else "None: not trained.",
        )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
