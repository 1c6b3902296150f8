"""The probe: small heads on cached features that foretell what training verticals together does to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from univert.core.config import to_plain
from univert.core.files import fingerprint
from univert.core.progress import progress_bar
from univert.data.samplers import PKSampler, step_rng
from univert.losses.mined_loss import MinedLoss
from univert.losses.names import LOSSES, compares_images, make_loss
from univert.metrics.inputs import has_queries
from univert.metrics.ranking import QueryOutcome, map_at_r
from univert.models.head import Head, l2_normalise
from univert.training.batches import make_miner
from univert.training.combine.folds import Embed, Folds, outcomes_from_dict, outcomes_to_dict
from univert.training.combine.greedy import Group
from univert.training.label_config import SpecialistsConfig
from univert.training.optimisers import Optimisers, parameter_groups, sparse_parameters
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.sources import CachedSource
from univert.training.specialists import group_loop, group_name, labelled_products

Positions = Int64[np.ndarray, "B"]


class Probe:
    """Trains one small head on some verticals for each fold and seed, and measures it on what it did not learn from.

    Batches, loss, learning rate and early stopping are the specialists'; head, views and steps are smaller, and with a
    base network that learns, its frozen features stand for it. Strong negatives are not mined, and dynamic
    assignment gives way to Proxy-NCA. The outcome of each set of verticals is kept with the run.

    Args:
        context: the run.
    """

    def __init__(self, context: RunContext) -> None:
        recipe = context.recipe
        self._config, self._specialists = recipe.combine.probe, _plain(recipe.specialists)
        # a frozen twin of the recipe has the same cached features, and asks for no more views than are wanted
        views = min(self._config.views, recipe.data.views)
        usual = Recipe()
        frozen = replace(
            recipe,
            trunk="frozen",
            partial_blocks=usual.partial_blocks,
            maps_gb=usual.maps_gb,
            data=replace(recipe.data, views=views),
        )
        self._context = RunContext(context.run, context.catalogue, frozen, device=str(context.device))
        self._folds = Folds(self._context, recipe.combine.folds, most_images=self._config.images)
        self._inputs = fingerprint(
            self._context.base_fingerprint,
            to_plain(frozen.data),
            to_plain(frozen.model.preprocessing()),
            to_plain(self._specialists),
            to_plain(self._config),
            recipe.combine.folds,
            recipe.seed,
        )

    def __call__(self, verticals: Group) -> dict[str, QueryOutcome]:
        """What happens to the queries of each vertical after training on all of them; from the run's record if there.

        Raises:
            BadInputError: a vertical has too few labelled images to learn from.
        """
        verticals = tuple(sorted(verticals))
        record = self._context.remembered(
            f"probe/{group_name(verticals)}",
            [self._inputs, *verticals],
            lambda: outcomes_to_dict(self._folds.measure(verticals, self._models(verticals))),
        )
        return outcomes_from_dict(record)

    def _models(self, verticals: Group) -> Iterator[tuple[int, Embed]]:
        total = self._folds.trainings * self._config.seeds
        with progress_bar(f"probe of {' + '.join(verticals)}", total, unit="trainings") as advance:
            for training in range(self._folds.trainings):
                for turn in range(self._config.seeds):
                    head = self._train(verticals, training, turn)
                    yield training, partial(self._embed, head)
                    advance(1)

    @cached_property
    def _features(self) -> tuple[Float[Tensor, "V N F"], Int64[np.ndarray, "M"]]:
        """Features of the labelled images in all views, and the place of each image of the catalogue among them."""
        context = self._context
        wanted = (context.products >= 0) & (context.is_train | (context.splits == "val"))
        wanted &= self._folds.among(context.vertical_names, -2)
        positions = np.flatnonzero(wanted)
        place = np.full(len(wanted), -1, np.int64)
        place[positions] = np.arange(len(positions))
        source = context.source
        assert isinstance(source, CachedSource)
        arrays = source.features
        table = np.stack([arrays.clean(positions)] * (source.views + 1))
        augmented = context.is_train[positions]
        for view in range(1, len(table)):
            table[view, augmented] = arrays.gather(positions[augmented], np.full(int(augmented.sum()), view))
        return torch.from_numpy(table).to(context.device), place

    def _embed(self, head: Head, positions: Positions) -> Float[np.ndarray, "B D"]:
        features, place = self._features
        head.eval()
        with torch.inference_mode():
            vectors: Float[np.ndarray, "B D"] = l2_normalise(head(features[0, place[positions]])).cpu().numpy()
        return vectors

    def _train(self, verticals: Group, training: int, turn: int) -> Head:
        context, config = self._context, self._config
        loop = group_loop(self._specialists.loop, len(verticals))
        among = self._folds.among(verticals, training)
        products = labelled_products(context, among)
        features, place = self._features
        sampler = PKSampler(
            products,
            products_per_batch=loop.batch_size // loop.images_per_product,
            images_per_product=loop.images_per_product,
            min_images=2 if compares_images(self._specialists.loss) else 1,
            seed=context.recipe.seed + turn,
        )
        total = config.steps * len(verticals)
        look_every, looks_without_better = math.ceil(total / loop.evaluations), 0
        codes = torch.from_numpy(products).to(features.device)
        best_score, best = -1.0, None
        with torch.random.fork_rng():
            torch.manual_seed((context.recipe.seed * 1_000 + training) * 1_000 + turn)
            head, loss = self._new(features.shape[-1], int(products.max()) + 1, turn)
            optimiser = _optimiser(head, loss, self._specialists)
            for step in range(total):
                positions = sampler.batch(step)
                views = step_rng(context.recipe.seed + turn, 2, step).integers(0, len(features), len(positions))
                head.train()
                embeddings = l2_normalise(head(features[views, place[positions]]))
                value: Tensor = loss(embeddings, codes[positions])
                optimiser.zero_grad()
                value.backward()
                nn.utils.clip_grad_norm_(head.parameters(), loop.clip_norm)
                _set_rates(optimiser, step / total, loop.warmup)
                optimiser.step()
                if (step + 1) % look_every == 0 or step + 1 == total:
                    score = self._score(head, verticals)
                    looks_without_better += score is not None
                    if score is not None and score > best_score:
                        best_score, looks_without_better = score, 0
                        best = {name: tensor.clone() for name, tensor in head.state_dict().items()}
                    if looks_without_better >= loop.patience:
                        break
        if best is not None:
            head.load_state_dict(best)
        return head

    def _new(self, width: int, products: int, turn: int) -> tuple[Head, nn.Module]:
        config, specialists = self._config, self._specialists
        hidden = [config.hidden_size] if config.hidden_size else []
        head = Head(width, hidden, config.size, batch_norm=False, dropout=0.0)
        loss = make_loss(
            specialists.loss,
            specialists.loss_options,
            products=products,
            size=config.size,
            proxies_per_product=specialists.proxies_per_product,
            seed=self._context.recipe.seed + turn,
        )
        if specialists.miner != "none":
            loss = MinedLoss(loss, make_miner(specialists.miner))
        return head.to(self._context.device), loss.to(self._context.device)

    def _score(self, head: Head, verticals: Sequence[str]) -> float | None:
        """Validation MAP@R over the verticals together, as the specialists' own early stopping has it."""
        context = self._context
        here = self._folds.among(verticals, -2) & (context.splits == "val") & (context.products >= 0)
        positions = np.flatnonzero(here)
        labels = context.products[positions]
        if not has_queries(labels):
            return None
        return map_at_r(self._embed(head, positions), labels)


def _plain(config: SpecialistsConfig) -> SpecialistsConfig:
    """The same without what the probe leaves out."""
    if LOSSES[config.loss].proxies == "dynamic":
        return SpecialistsConfig(loss="proxy-nca", loop=config.loop)
    return replace(config, mine_every_steps=0)


def _optimiser(head: Head, loss: nn.Module, config: SpecialistsConfig) -> Optimisers:
    loop = config.loop
    groups = parameter_groups({"head": list(head.parameters())}, list(loss.parameters()), loop)
    return Optimisers(groups, loop.optimiser, list(sparse_parameters(loss)))


def _set_rates(optimiser: Optimisers, done: float, warmup: float) -> None:
    """A linear warm-up, then a half cosine to zero."""
    rise = min(1.0, (done + 1e-2) / max(1e-2, warmup))
    fall = 0.5 * (1 + math.cos(math.pi * max(0.0, done - warmup) / (1 - warmup)))
    for group in optimiser.groups:
        group["lr"] = group["peak"] * rise * fall
