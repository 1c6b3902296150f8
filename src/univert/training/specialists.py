"""Specialists: one embedding model a vertical or group of verticals, and the joint models beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool

from univert.core.config import to_plain
from univert.core.files import fingerprint
from univert.losses.names import LossName, compares_images
from univert.models.embedder import Embedder
from univert.training.averaging import START_SHARES, towards
from univert.training.jobs import TrainedModel
from univert.training.label_config import SpecialistsConfig
from univert.training.label_training import label_job
from univert.training.run_context import RunContext


def train_specialist(context: RunContext, *verticals: str) -> TrainedModel:
    """Train (or load) the specialist of a vertical, or of a group of them, on their labelled training images alone.

    A group has at least as many steps for each vertical as that has by itself.
    """
    if len(verticals) == 1:
        return train_specialists(context, verticals)[verticals[0]]
    return train_together(context, verticals, name=f"specialists/{context.images.folder_of(*verticals)}")


def train_specialists(context: RunContext, verticals: Sequence[str]) -> dict[str, TrainedModel]:
    """Train (or load) the specialist of each of some verticals, all of which keep the same share of their start.

    Each goes to its last step, for among many looks at the few validation products of one vertical the best is chance.
    The share is chosen by the mean over the verticals.
    """
    config = context.recipe.specialists
    folders = {vertical: context.images.folder_of(vertical) for vertical in verticals}
    last = {
        vertical: train_together(context, [vertical], name=f"last_step/{folder}", looks=False)
        for vertical, folder in folders.items()
    }

    def common_share() -> dict[str, Any]:
        found: dict[float, dict[str, float]] = {share: {} for share in (0.0, *START_SHARES)}
        for vertical, model in last.items():
            start, among = _new_specialist(context, config, [vertical]), context.images.of_vertical(vertical)
            for share, scores in found.items():
                if score := context.stages.score_of(towards(model.embedder, start, share), among):
                    scores[vertical] = score()
        best = max(found, key=lambda share: sum(found[share].values()))
        return {"share": best, "val_map_at_r": found[best]}

    def with_start(vertical: str) -> Embedder:
        return towards(last[vertical].embedder, _new_specialist(context, config, [vertical]), share)

    chosen = context.stages.remembered("specialists/share", [model.key for model in last.values()], common_share)
    share = chosen["share"]
    return {
        vertical: context.stages.keep(
            f"specialists/{folders[vertical]}",
            fingerprint(model.key, share),
            model.record | {"start_share": share, "best_score": chosen["val_map_at_r"].get(vertical)},
            partial(with_start, vertical),
            among=context.images.of_vertical(vertical),
        )
        for vertical, model in last.items()
    }


def _new_specialist(context: RunContext, config: SpecialistsConfig, verticals: Sequence[str]) -> Embedder:
    """An embedder of the size that the recipe wants for some verticals; the largest, if they differ."""
    sizes = [size for vertical in verticals if (size := config.sizes.get(vertical, config.size))]
    return context.new_embedder(size=max(sizes)) if sizes else context.new_embedder()


def train_together(
    context: RunContext,
    verticals: Sequence[str],
    *,
    name: str,
    among: Bool[np.ndarray, "N"] | None = None,
    looks: bool = True,
) -> TrainedModel:
    """Train (or load) one model on some verticals, or on the images `among` alone, in the folder `name`.

    Without `looks` at the validation images the last weights stay.
    """
    config = context.recipe.specialists
    config = replace(config, loop=replace(config.loop, min_steps=config.loop.steps(0) * len(verticals)))
    inputs = {"verticals": sorted(verticals), **to_plain(config)} | ({} if looks else {"looks": False})
    if among is None:
        among = np.any([context.images.of_vertical(vertical) for vertical in verticals], axis=0)
    else:
        inputs["among"] = fingerprint(np.packbits(among).tobytes())
    folder = context.stages.work_folder(name)
    return context.stages.train(
        name,
        inputs,
        lambda: replace(
            label_job(context, config, among, folder=folder, embedder=_new_specialist(context, config, verticals)),
            looks=looks,
        ),
    )


def train_joint(
    context: RunContext,
    loss: LossName,
    image_presentations: int,
    *,
    name: str | None = None,
    hidden_sizes: tuple[int, ...] | None = None,
) -> TrainedModel:
    """Train (or load) one model on all verticals at once: what the unified model has to beat.

    If the loss is that of the specialists, their options hold, else its defaults. The model sees that many images at
    most. Its folder within the run is `joint/LOSS`, unless it has a name, its head as wide as the recipe's, unless it
    has widths of its own.
    """
    config = joint_config(context, loss, image_presentations)
    return train_on_labels(context, config, name=name or f"joint/{loss.replace('-', '_')}", hidden_sizes=hidden_sizes)


def joint_config(context: RunContext, loss: LossName, image_presentations: int) -> SpecialistsConfig:
    """How one model of all verticals is trained; see `train_joint`."""
    config = context.recipe.specialists
    steps = max(1, image_presentations // config.loop.batch_size)
    loop = replace(config.loop, epochs=1, min_steps=steps)
    if loss == config.loss:
        return replace(config, loop=loop)
    if compares_images(loss) and loop.images_per_product == 1:  # each image needs others of its product in the batch
        loop = replace(loop, images_per_product=None)
    return SpecialistsConfig(loss=loss, loop=loop)


def train_on_labels(
    context: RunContext, config: SpecialistsConfig, *, name: str, hidden_sizes: tuple[int, ...] | None = None
) -> TrainedModel:
    """Train (or load) one model, in the folder `name`, on the labelled training images of all verticals."""
    everything = np.ones(len(context.images.catalogue), bool)
    folder = context.stages.work_folder(name)
    head: dict[str, Any] = {} if hidden_sizes is None else {"hidden_sizes": hidden_sizes}
    return context.stages.train(
        name,
        to_plain(config) | to_plain(head),
        lambda: label_job(context, config, everything, folder=folder, embedder=context.new_embedder(**head)),
    )


def presentations(trained: list[TrainedModel]) -> int:
    """Images shown during the training of several models, counted with repetition."""
    return int(sum(model.record["image_presentations"] for model in trained))


def seconds_of(trained: list[TrainedModel]) -> float:
    """Seconds that the training of several models took."""
    return float(sum(model.record["seconds"] for model in trained))
