"""What all commands share: the applications and common options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="univert",
    help="One embedding model, a searchable index and visual search for catalogues with many product verticals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)
catalogue_app = typer.Typer(help="Build a catalogue of images, or look at one.", no_args_is_help=True)
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(catalogue_app, name="catalog", hidden=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Device = Annotated[str, typer.Option(help="A torch device such as cpu or cuda:1; auto takes CUDA where it is.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change the recipe: key=value, dots for tables.")]
Names = Annotated[list[str] | None, typer.Option(help="Only these verticals; give it again for several.")]


def model_folder(path: Path | str) -> str:
    """A model's folder or name as given, or of a run that of its deployed model."""
    if not (Path(path) / "groups.json").exists():
        return str(path)
    from univert.training.grow.lineage import deployed_model

    return str(deployed_model(path))


def detector_folder(path: Path) -> Path:
    """A detector's folder or file as given, or of a run that of its detector."""
    of_run = path / "detector"
    return of_run if (of_run / "config.json").exists() else path


def load_model(path: Path, device: str) -> Any:
    """A saved model, or a run's deployed one, on a device, `auto` or as torch names it."""
    from univert.core.tensors import choose_device
    from univert.models.embedder import Embedder

    return Embedder.from_pretrained(model_folder(path)).to(choose_device(device))


def load_embedder(path: Path | str, device: str) -> Any:
    """What embeds a catalogue fastest: on a CPU, ONNX Runtime where the model was exported, else `load_model`'s."""
    from univert.core.tensors import choose_device
    from univert.models.runtime.engine import load_engine

    return load_engine(model_folder(path)) if choose_device(device).type == "cpu" else load_model(Path(path), device)
