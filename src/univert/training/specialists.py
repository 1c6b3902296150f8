"""Specialists: one embedding model a vertical, and the joint models that serve as yardsticks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from univert.core.config import config_to_mapping
from univert.core.files import fingerprint, folder_name, publishing
from univert.losses.mined_loss import MinedLoss
from univert.losses.registry import LossName, compares_images, make_loss
from univert.models.embedder import Embedder
from univert.training.batches import label_sampler, make_miner
from univert.training.jobs import Lesson, Trained
from univert.training.label_config import LoopConfig, SpecialistsConfig, with_positives
from univert.training.objectives import label_objective
from univert.training.proxies import bounds_monitor, start_proxies
from univert.training.run_context import Workshop


def train_specialist(
    workshop: Workshop, vertical: str, *, config: SpecialistsConfig | None = None, within: str = "specialists"
) -> Trained:
    """Train (or load) the specialist of one vertical, on its labelled training images alone.

    Args:
        workshop: the run.
        vertical: its name.
        config: null takes the recipe's.
        within: the folder within the run that holds the specialists' folders.
    """
    config = config or workshop.recipe.specialists
    name = f"{within}/{folder_name(vertical)}"
    folder = workshop.work_folder(name)
    return workshop.train_stage(
        name,
        {"vertical": vertical, **config_to_mapping(config)},
        lambda: label_lesson(
            workshop,
            config,
            workshop.of_vertical(vertical),
            folder=folder,
            embedder=_new_specialist(workshop, config, [vertical]),
        ),
    )


def _new_specialist(workshop: Workshop, config: SpecialistsConfig, verticals: Sequence[str]) -> Embedder:
    """An embedder of the size that the recipe wants for some verticals; the largest, if they differ."""
    sizes = [size for vertical in verticals if (size := config.sizes.get(vertical, config.size))]
    return workshop.new_embedder(size=max(sizes)) if sizes else workshop.new_embedder()


def group_name(verticals: Sequence[str]) -> str:
    """A group's name as the name of a folder, whatever the order of its verticals."""
    name = "+".join(folder_name(vertical) for vertical in sorted(verticals))
    most = 120  # file systems end at 255 bytes, and stages put more before it
    return name if len(name) <= most else f"{name[:most]}~{fingerprint(sorted(verticals))[:8]}"


def train_group(workshop: Workshop, verticals: Sequence[str]) -> Trained:
    """Train (or load) the specialist of a group of verticals, on their labelled training images together.

    It is the specialist of each of them; see `group_loop` for its steps. If a trial of `combine` trained this very
    model, it is taken from there.
    """
    if len(verticals) == 1:
        return train_specialist(workshop, verticals[0])
    name = f"specialists/{group_name(verticals)}"
    if (workshop.run.path / trial_name(verticals) / "model.safetensors").exists():
        _adopt(workshop, train_trial(workshop, verticals), name)
    return _train_together(workshop, verticals, name=name)


def trial_name(verticals: Sequence[str]) -> str:
    """The folder of a trial's model within the run."""
    return f"trials/{group_name(verticals)}"


def train_trial(workshop: Workshop, verticals: Sequence[str]) -> Trained:
    """Train (or load) one model on some verticals, to see what that does to each of them."""
    return _train_together(workshop, verticals, name=trial_name(verticals))


def held_out_name(verticals: Sequence[str], training: int) -> str:
    """The folder, within the run, of a model that some products were held out from."""
    return f"trials/fold-{training}/{group_name(verticals)}"


def train_held_out(
    workshop: Workshop, verticals: Sequence[str], among: Bool[np.ndarray, "N"], *, training: int
) -> Trained:
    """Train (or load) one model on some verticals without the products that another purpose needs.

    Args:
        workshop: the run.
        verticals: to be trained together.
        among: the images that it may look at.
        training: its number among those that share the products.
    """
    return _train_together(workshop, verticals, name=held_out_name(verticals, training), among=among)


def group_loop(loop: LoopConfig, verticals: int) -> LoopConfig:
    """The training of a group: as many steps for each vertical as by itself, and no early end.

    Some verticals are at their best after a few looks, others at the very end. A group's validation score has its
    first peak with the former, and patience would end the training there, at a high learning rate, to the harm of
    the latter. The weights of the best look still count.
    """
    if verticals == 1:
        return loop
    return replace(loop, min_steps=loop.min_steps * verticals, patience=loop.evaluations)


def _train_together(
    workshop: Workshop, verticals: Sequence[str], *, name: str, among: Bool[np.ndarray, "N"] | None = None
) -> Trained:
    config = workshop.recipe.specialists
    config = replace(config, loop=group_loop(config.loop, len(verticals)))
    inputs = {"verticals": sorted(verticals), **config_to_mapping(config)}
    if among is None:
        among = np.any([workshop.of_vertical(vertical) for vertical in verticals], axis=0)
    else:
        inputs["among"] = fingerprint(np.packbits(among).tobytes())
    folder = workshop.work_folder(name)
    return workshop.train_stage(
        name,
        inputs,
        lambda: label_lesson(
            workshop, config, among, folder=folder, embedder=_new_specialist(workshop, config, verticals)
        ),
    )


def _adopt(workshop: Workshop, trial: Trained, name: str) -> None:
    """Make a trial's model that of a stage with the same inputs."""
    folder = workshop.run.path / name
    if workshop.run.finished(name, trial.key) is not None and (folder / "model.safetensors").exists():
        return
    workshop.run.forget(name)
    with publishing(folder, overwrite=True) as place:
        shutil.copytree(trial.folder, place, dirs_exist_ok=True)
    workshop.run.finish(name, trial.key, trial.record)


def train_joint(workshop: Workshop, loss: LossName, image_presentations: int, *, name: str | None = None) -> Trained:
    """Train (or load) one model on all verticals at once: what the unified model has to beat.

    Args:
        workshop: the run.
        loss: as in `SpecialistsConfig`; the specialists' options hold if it is theirs, else its defaults.
        image_presentations: how many images it may see at most.
        name: its folder within the run; null takes `joint/LOSS`.
    """
    config = workshop.recipe.specialists
    steps = max(1, image_presentations // config.loop.batch_size)
    loop = replace(config.loop, epochs=1, min_steps=steps)
    if loss == config.loss:
        config = replace(config, loop=loop)
    else:
        config = SpecialistsConfig(loss=loss, loop=with_positives(loop) if compares_images(loss) else loop)
    return train_on_labels(workshop, config, name=name or f"joint/{loss.replace('-', '_')}")


def train_on_labels(workshop: Workshop, config: SpecialistsConfig, *, name: str) -> Trained:
    """Train (or load) one model on the labelled training images of all verticals.

    Args:
        workshop: the run.
        config: loss and loop.
        name: its folder within the run.
    """
    everything = np.ones(len(workshop.catalogue), bool)
    folder = workshop.work_folder(name)
    return workshop.train_stage(
        name, config_to_mapping(config), lambda: label_lesson(workshop, config, everything, folder=folder)
    )


def labelled_products(workshop: Workshop, among: Bool[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """Product codes of the labelled training images of a subset, counted from 0; -1 for every other image."""
    usable = workshop.is_train & (workshop.products >= 0) & among
    codes = np.full(len(workshop.products), -1, np.int64)
    codes[usable] = np.unique(workshop.products[usable], return_inverse=True)[1]
    return codes


def label_lesson(
    workshop: Workshop,
    config: SpecialistsConfig,
    among: Bool[np.ndarray, "N"],
    *,
    folder: Path,
    embedder: Embedder | None = None,
) -> Lesson:
    """What a model learns from product labels alone.

    Args:
        workshop: the run.
        config: loss, batches and loop.
        among: the images that count, in training and in validation.
        folder: of the checkpoint; strong negatives that are mined on the way are kept there, too.
        embedder: to go on with; null takes a new one.
    """
    products = labelled_products(workshop, among)
    seed, count = workshop.recipe.seed, int(products.max()) + 1
    embedder = embedder or workshop.new_embedder()
    loss = make_loss(
        config.loss,
        config.loss_options,
        products=count,
        size=embedder.size,
        proxies_per_product=config.proxies_per_product,
        seed=seed,
    )
    if config.proxy_start == "data":
        labelled = np.flatnonzero(products >= 0)
        start_proxies(loss, workshop.source.embed_all(embedder, labelled), products[labelled], seed=seed)
    monitor = bounds_monitor(workshop, embedder, loss, products)
    if config.miner != "none":
        loss = MinedLoss(loss, make_miner(config.miner))
    return Lesson(
        embedder=embedder,
        objective=label_objective(loss, products, reseed_every_steps=config.reseed_every_steps, seed=seed),
        sampler=label_sampler(workshop, config, products, embedder, folder),
        loop=config.loop,
        among=among,
        monitor=monitor,
    )


def presentations(trained: list[Trained]) -> int:
    """Images shown during the training of several models, counted with repetition."""
    return int(sum(model.record["image_presentations"] for model in trained))
