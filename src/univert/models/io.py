"""Models on disk: a folder with config.json, model.safetensors and a card; never a pickle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import univert
from univert.core.config import from_plain, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, publishing
from univert.models.card import ModelCard
from univert.models.config import EmbedderConfig

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
FORMAT = 1

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class StoredConfig:
    """What `config.json` holds; the fingerprint is that of the tensors in `model.safetensors`."""

    format: int
    univert_version: str
    config: dict[str, Any]
    weights_fingerprint: str


class SavedModel(nn.Module):
    """A model that is saved as a folder.

    Attributes:
        config: what it is made of.
    """

    CARD: ClassVar[type[ModelCard]] = ModelCard
    config: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def fingerprint(self) -> str:
        """A hash of configuration and weights, the same on every device: equal ones mean comparable answers."""
        return fingerprint(to_plain(self.config), weights_fingerprint(self._weights()))

    def save_pretrained(self, folder: Path | str, card: ModelCard | None = None, *, overwrite: bool = False) -> Path:
        """Write `config.json`, `model.safetensors` and `README.md`, all or nothing; no pickle.

        Args:
            folder: where to; must not exist yet.
            card: what to say about the model; None writes a card about an untrained one.
            overwrite: replace what is there.

        Returns:
            `folder`.

        Raises:
            BadInputError: `folder` exists and `overwrite` is false.
            OSError: the disk is full or not writable; nothing is left behind.
        """
        write_model(Path(folder), self.config, self._weights(), card or self.CARD(), overwrite=overwrite)
        return Path(folder).absolute()

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}

    def filled_from(self, config: Any, weights: Mapping[str, Tensor], where: Path | str) -> Self:
        """The model with the configuration and the weights of a saved one, in evaluation mode."""
        self.config = config
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise BadInputError(f"{where}: weights and configuration do not fit: {detail}") from None
        return self.eval()


def write_model(
    folder: Path, config: Any, weights: Mapping[str, Tensor], card: ModelCard, *, overwrite: bool = False
) -> None:
    """Save a model as a folder, whole or not at all.

    Raises:
        BadInputError: `folder` exists and `overwrite` is false.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    print_of_weights = weights_fingerprint(weights)
    stored = StoredConfig(
        format=FORMAT,
        univert_version=univert.__version__,
        config=to_plain(config),
        weights_fingerprint=print_of_weights,
    )
    with publishing(folder, overwrite=overwrite) as place:
        save_file(dict(weights), place / WEIGHTS_FILE, metadata={"format": "pt"})
        (place / WEIGHTS_FILE).chmod(0o644)
        (place / CONFIG_FILE).write_text(json.dumps(to_plain(stored), indent=2) + "\n", encoding="utf-8")
        (place / CARD_FILE).write_text(card.to_markdown(stored.config), encoding="utf-8")


def read_model(
    folder_or_hub_id: Path | str, *, revision: str | None = None, config_type: type[Any] = EmbedderConfig
) -> tuple[Any, dict[str, Tensor]]:
    """The configuration, a `config_type`, and the tensors of a saved model; a `Path` is never looked up on the hub.

    Raises:
        BadInputError: there is no such model, or its files are incomplete, damaged or do not belong together.
    """
    folder = _find(folder_or_hub_id, revision)
    stored = _read_config(folder / CONFIG_FILE)
    weights = _read_weights(folder / WEIGHTS_FILE)
    if stored.weights_fingerprint != weights_fingerprint(weights):
        raise BadInputError(
            f"{folder / WEIGHTS_FILE} does not belong to its {CONFIG_FILE}; copy the whole folder again"
        )
    return from_plain(config_type, stored.config, where=str(folder / CONFIG_FILE)), weights


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """A hash of tensors and their names."""
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
    if isinstance(folder_or_hub_id, Path) or not _HUB_ID.fullmatch(folder_or_hub_id):
        raise BadInputError(f"{folder}: no such model folder; pass a folder, or OWNER/NAME of a model on the hub")
    from huggingface_hub import snapshot_download

    try:
        files = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
        return Path(snapshot_download(str(folder_or_hub_id), revision=revision, allow_patterns=files))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{folder}: no such folder here, and it cannot be fetched from the Hugging Face hub: {reason}"
        ) from error


def _read_config(path: Path) -> StoredConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path.parent} is not a model: it has no {path.name}") from None
    except (ValueError, OSError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict) or "config" not in values:
        raise BadInputError(f"{path} is not the configuration of a Univert model")
    if values.get("format") != FORMAT:
        raise BadInputError(f"{path}: unknown format {values.get('format')!r}, this version reads {FORMAT}")
    return from_plain(StoredConfig, values, where=str(path))


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BadInputError(f"{path.parent} is incomplete: it has no {path.name}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInputError(f"{path} is damaged: {error}; copy it again") from None
