"""Models on disk: a folder with config.json, model.safetensors and a card; never a pickle."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import univert
from univert.core.config import from_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, publishing
from univert.models.card import ModelCard
from univert.models.embedder import Embedder, EmbedderConfig

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
FORMAT = 1

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_fingerprint(model: Embedder) -> str:
    """A hash of a model's configuration and weights, the same on every device and machine."""
    return fingerprint(dataclasses.asdict(model.config), _weights_fingerprint(_weights(model)))


def save_model(model: Embedder, folder: Path, card: ModelCard | None = None, *, overwrite: bool = False) -> Path:
    """Save a model as a folder, whole or not at all.

    Args:
        model: the model to save; it stays as it is.
        folder: where to; must not exist yet.
        card: what to say about the model; None writes a card about an untrained one.
        overwrite: replace what is there.

    Returns:
        `folder`.

    Raises:
        BadInputError: `folder` exists and `overwrite` is false.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    config, weights = dataclasses.asdict(model.config), _weights(model)
    stored = {
        "format": FORMAT,
        "univert_version": univert.__version__,
        "config": config,
        "weights_fingerprint": _weights_fingerprint(weights),
    }
    with publishing(folder, overwrite=overwrite) as place:
        save_file(weights, place / WEIGHTS_FILE, metadata={"format": "pt"})
        (place / WEIGHTS_FILE).chmod(0o644)
        (place / CONFIG_FILE).write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
        (place / CARD_FILE).write_text((card or ModelCard()).to_markdown(config), encoding="utf-8")
    return folder


def load_model(folder_or_hub_id: Path | str, *, revision: str | None = None) -> Embedder:
    """Load a model, in evaluation mode, on the CPU.

    Args:
        folder_or_hub_id: a folder that `save_model` wrote, or `OWNER/NAME` on the Hugging Face hub.
        revision: branch, tag or commit on the hub.

    Raises:
        BadInputError: there is no such model, or its files are incomplete, damaged or do not fit together.
    """
    folder = _find(folder_or_hub_id, revision)
    stored = _read_config(folder / CONFIG_FILE)
    config = from_plain(EmbedderConfig, stored["config"], where=str(folder / CONFIG_FILE))
    weights = _read_weights(folder / WEIGHTS_FILE)
    if stored.get("weights_fingerprint") != _weights_fingerprint(weights):
        raise BadInputError(
            f"{folder / WEIGHTS_FILE} does not belong to its {CONFIG_FILE}; copy the whole folder again"
        )
    with torch.random.fork_rng(devices=[]):  # loading draws nothing from the caller's random numbers
        # The weights come from the file, so none are fetched; the configuration stays as it was saved.
        model = Embedder(dataclasses.replace(config, pretrained=False))
    model.config = config
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise BadInputError(f"{folder}: weights and configuration do not fit: {detail}") from None
    return model.eval()


def _weights(model: Embedder) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _weights_fingerprint(weights: dict[str, Tensor]) -> str:
    parts: list[Any] = []
    for name in sorted(weights):
        value = weights[name].contiguous()
        parts += [[name, str(value.dtype), list(value.shape)], value.view(-1).view(torch.uint8).numpy().tobytes()]
    return fingerprint(*parts)


def _find(folder_or_hub_id: Path | str, revision: str | None) -> Path:
    folder = Path(folder_or_hub_id)
    if folder.is_dir():
        if revision is not None:
            raise BadInputError(f"revision belongs to models on the hub, but {folder} is a folder; leave it out")
        return folder
    if folder.exists():
        raise BadInputError(f"{folder} is a file; pass the model's folder, the one with {CONFIG_FILE}")
    if not _HUB_ID.fullmatch(str(folder_or_hub_id)):
        raise BadInputError(f"{folder}: no such model folder; pass a folder, or OWNER/NAME of a model on the hub")
    return _download(str(folder_or_hub_id), revision)


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        files = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=files))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{hub_id}: no such folder here, and it cannot be fetched from the Hugging Face hub: {reason}"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path.parent} is not a model: it has no {path.name}") from None
    except (ValueError, OSError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise BadInputError(f"{path} is not the configuration of a Univert model")
    if stored.get("format") != FORMAT:
        raise BadInputError(
            f"{path}: unknown format {stored.get('format')!r}, this version reads {FORMAT}; upgrade univert"
        )
    return stored


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BadInputError(f"{path.parent} is incomplete: it has no {path.name}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInputError(f"{path} is damaged: {error}; copy it again") from None
