"""What a deployed model learns when it grows: to embed a new vertical, and every old image as it was stored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from univert.core.files import fingerprint
from univert.data.samplers import Sampler, UniformSampler
from univert.losses.target_l2_loss import TargetL2Loss
from univert.metrics.compare import compare_vectors
from univert.metrics.inputs import has_queries
from univert.metrics.ranking import map_at_r, rank_queries
from univert.models.embedder import Embedder
from univert.training.jobs import TrainingJob
from univert.training.label_config import LoopConfig
from univert.training.objectives import TargetObjective
from univert.training.run_context import RunContext
from univert.training.targets.alignment import fit_projection, orthogonal_alignment, unit
from univert.training.view_arrays import Positions, Rows, ViewArrays, by_parts

ROWS_AT_ONCE = 256
NEW_SHARE = 0.35
"""So much of each batch is of the new vertical."""


@dataclass(frozen=True, kw_only=True)
class MappedModel:
    """A model, and a linear map from its space to the deployed model's."""

    name: str
    model: Embedder
    matrix: Float[np.ndarray, "E D"]

    @classmethod
    def as_it_is(cls, name: str, model: Embedder) -> MappedModel:
        """A model whose space is the deployed model's already."""
        return cls(name=name, model=model, matrix=np.eye(model.size, dtype=np.float32))

    @classmethod
    def aligned(
        cls, name: str, model: Embedder, deployed: Embedder, context: RunContext, where: Positions
    ) -> MappedModel:
        """A model with the rotation that brings its vectors of some images nearest to the deployed model's.

        Distances stay as they are, unless the deployed model is narrower.
        """
        vectors = context.features.source.embed_all(model, where)
        projection = fit_projection(vectors, deployed.size)
        rotation = orthogonal_alignment(vectors @ projection, context.features.source.embed_all(deployed, where))
        return cls(name=name, model=model, matrix=np.asarray(projection @ rotation, np.float32))

    def embed(self, context: RunContext, inputs: torch.Tensor) -> Rows:
        """What the source loaded for some images and views, in the deployed model's space."""
        rows: Rows = (context.features.source.infer(self.model, inputs) @ torch.from_numpy(self.matrix)).numpy()
        return rows

    def embed_clean(self, context: RunContext, positions: Positions) -> Rows:
        """Images as they are, in the deployed model's space."""
        return np.asarray(context.features.source.embed_all(self.model, positions) @ self.matrix)


@dataclass(frozen=True, kw_only=True)
class GrowthTargets:
    """The learning targets, and what they were made from.

    Attributes:
        arrays: a unit row for every image and view.
        members: of the new vertical's targets.
        scores: MAP@R of the validation images in the grown gallery with each ensemble tried; empty without new queries.
    """

    arrays: ViewArrays
    members: tuple[str, ...]
    scores: dict[str, float]


def growth_targets(
    context: RunContext,
    vertical: str,
    *,
    deployed: Embedder,
    indexed_by: Mapping[str, Embedder],
    specialist: Embedder,
    joint: Embedder,
) -> GrowthTargets:
    """The learning target of every image and view; computed once, then read from disk.

    An image of an old vertical has the embedding of that very view by the model that indexed the vertical. One of the
    new vertical has its specialist's embedding, rotated towards the deployed model's: distances within the vertical
    stay as they are, and the target lies near where the grown model starts. A joint model, which knows where the new
    vertical lies between the others, and the deployed one join it, each if the mean of them all then raises MAP@R of
    all validation images in the gallery of stored vectors and new targets.

    `indexed_by` has for every old vertical the model whose vectors are in the index.
    """
    is_new = context.images.of_vertical(vertical)
    train = np.flatnonzero(context.images.is_train)
    candidates = [
        MappedModel.aligned("specialist", specialist, deployed, context, train[is_new[train]]),
        MappedModel.aligned("joint", joint, deployed, context, train),
        MappedModel.as_it_is("deployed", deployed),
    ]
    indexing = [MappedModel.as_it_is(name, indexed_by.get(name, deployed)) for name in context.images.vertical_names]
    members, scores = _choose(context, candidates, indexing, is_new)
    new = context.images.vertical_names.index(vertical)

    def rows(positions: Positions, views: Positions) -> Rows:
        found = np.empty((len(positions), deployed.size), np.float32)
        for code in np.unique(context.images.verticals[positions]):
            here = context.images.verticals[positions] == code
            inputs = context.features.source.load(positions[here], views[here])
            models = members if code == new else [indexing[code]]
            found[here] = _mean([model.embed(context, inputs) for model in models])
        return found

    key = fingerprint(
        {name: model.fingerprint for name, model in indexed_by.items()},
        [[member.name, member.model.fingerprint] for member in members],
        deployed.fingerprint,
    )
    arrays = context.features.view_arrays(
        f"growth-targets-{key}", "learning targets", deployed.size, by_parts(rows, ROWS_AT_ONCE)
    )
    return GrowthTargets(arrays=arrays, members=tuple(member.name for member in members), scores=scores)


def _choose(
    context: RunContext,
    candidates: Sequence[MappedModel],
    indexing: Sequence[MappedModel],
    is_new: Bool[np.ndarray, "N"],
) -> tuple[list[MappedModel], dict[str, float]]:
    """The first candidate, and each further one that the validation images in the grown gallery speak for.

    It must raise their MAP@R, and make no vertical significantly worse by the paired comparison, nor brands never seen.
    """
    members = [candidates[0]]
    positions = np.flatnonzero((context.images.splits == "val") & (context.images.products >= 0))
    new = positions[is_new[positions]]
    if not has_queries(context.images.products[new]):
        return members, {}
    gallery = np.empty((len(positions), candidates[0].matrix.shape[1]), np.float32)
    for code in np.unique(context.images.verticals[positions]):
        here = context.images.verticals[positions] == code
        gallery[here] = indexing[code].embed_clean(context, positions[here])
    rows = {member.name: member.embed_clean(context, new) for member in candidates}

    def grown(ensemble: Sequence[MappedModel]) -> Rows:
        vectors = gallery.copy()
        vectors[is_new[positions]] = _mean([rows[member.name] for member in ensemble])
        return vectors

    products, names = context.images.products[positions], context.images.names_of(positions)
    unseen_brands = context.images.of_unseen_brands[positions]
    scores = {members[0].name: map_at_r(grown(members), products)}
    for candidate in candidates[1:]:
        tried = [*members, candidate]
        comparison = compare_vectors(
            grown(members), grown(tried), products, names, unseen_brands=unseen_brands, seed=context.recipe.seed
        )
        gain = comparison.merged["map_at_r"]
        scores[" + ".join(member.name for member in tried)] = gain.second
        if gain.difference > 0 and not comparison.worse_in_any():
            members = tried
    return members, scores


def _mean(parts: Sequence[Rows]) -> Rows:
    """The mean of several models' rows, of unit length again."""
    return unit(np.sum(parts, axis=0))


def growth_job(
    context: RunContext, vertical: str, *, deployed: Embedder, targets: ViewArrays, loop: LoopConfig
) -> TrainingJob:
    """The job of the grown model, which starts from the deployed one's weights."""
    embedder = copy.deepcopy(deployed)
    positions = np.flatnonzero(context.images.is_train)
    is_new = context.images.of_vertical(vertical)[positions]
    return TrainingJob(
        embedder=embedder,
        objective=TargetObjective(TargetL2Loss(), targets),
        sampler=GrowthSampler(
            positions[is_new], positions[~is_new], batch_size=loop.batch_size, seed=context.recipe.seed
        ),
        loop=loop,
        settings="grow.loop",
        score=stored_score(context, vertical, embedder, targets),
    )


def stored_score(
    context: RunContext, vertical: str, embedder: Embedder, targets: ViewArrays
) -> Callable[[], float] | None:
    """MAP@R over the labelled validation images in the gallery of the grown index; None without queries.

    The model's queries search the stored vectors of the old verticals (`targets`), and its own of the new one.
    """
    positions = context.images.validation_queries
    if positions is None:
        return None
    labels, stored = context.images.products[positions], targets.clean(positions)
    is_new = context.images.of_vertical(vertical)[positions, None]

    def score() -> float:
        queries = context.features.source.embed_all(embedder, positions)
        gallery = np.where(is_new, queries, stored)
        outcome = rank_queries(queries, labels, gallery_vectors=gallery, leave_one_out=True)
        assert outcome.average_precision_at_r is not None
        return float(outcome.average_precision_at_r.mean())

    return score


class GrowthSampler(Sampler):
    """So many images of the new vertical in each batch, and of the old ones; each kind once in its own epoch."""

    def __init__(self, new: Positions, old: Positions, *, batch_size: int, seed: int) -> None:
        count = min(max(1, round(NEW_SHARE * batch_size)), batch_size - 1)
        self._parts = [
            UniformSampler(new, batch_size=count, seed=seed),
            UniformSampler(old, batch_size=batch_size - count, seed=seed),
        ]
        self.batch_size = sum(part.batch_size for part in self._parts)
        self.steps_per_epoch = max(1, (len(new) + len(old)) // self.batch_size)

    def batch(self, step: int) -> Positions:
        """Positions of step `step`, the new vertical's first."""
        return np.concatenate([part.batch(step) for part in self._parts])
