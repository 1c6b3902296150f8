"""Learning targets of a growth: old images as they were stored, new ones where their specialists put them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from univert.core.files import fingerprint
from univert.metrics.compare import METRICS, compare_vectors
from univert.metrics.inputs import has_queries
from univert.metrics.ranking import map_at_r
from univert.models.embedder import Embedder
from univert.training.grow.config import GrowConfig
from univert.training.run_context import RunContext
from univert.training.targets.alignment import orthogonal_alignment
from univert.training.targets.projection import fit_projection, unit
from univert.training.view_arrays import Positions, Rows, ViewArrays, by_parts

ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class GrowthMember:
    """A model whose embeddings of the new vertical's images join their learning targets.

    Attributes:
        name: for people.
        model: it.
        towards: (E, D) from its space to the deployed model's.
    """

    name: str
    model: Embedder
    towards: Float[np.ndarray, "E D"]


@dataclass(frozen=True, kw_only=True)
class GrowthTargets:
    """The learning targets, and what they were made from.

    Attributes:
        arrays: a unit row for every image and view.
        members: of the new vertical's targets.
        scores: MAP@R of all validation images in the grown gallery with each ensemble that was tried, in order; empty
            where none was, or no new image is a query.
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
    joint: Embedder | None,
    config: GrowConfig,
) -> GrowthTargets:
    """The learning target of every image and view; computed once, then read from disk.

    An image of an old vertical has the embedding of that very view by the model that indexed the vertical. One of the
    new vertical has its specialist's embedding, rotated towards the deployed model's: distances within the vertical
    stay as they are, and the target lies near where the grown model starts. In an ensemble it is the mean with the
    embeddings by a joint model and by the deployed one, each of which must raise MAP@R to join: that of all validation
    images in the gallery of stored vectors and new targets.

    Args:
        context: of the growth.
        vertical: the new one.
        deployed: the model that grows.
        indexed_by: for every old vertical, the model whose vectors are in the index.
        specialist: of the new vertical.
        joint: of all verticals; None without an ensemble.
        config: the choices.
    """
    is_new = context.images.of_vertical(vertical)
    usable = context.images.is_train & ((context.images.products >= 0) | config.unlabelled)

    def towards(model: Embedder, fitted_on: Bool[np.ndarray, "N"]) -> Float[np.ndarray, "E D"]:
        return _towards(context, model, deployed, np.flatnonzero(fitted_on), align=config.align)

    candidates = [GrowthMember(name="specialist", model=specialist, towards=towards(specialist, usable & is_new))]
    if joint is not None:  # where the new vertical lies among the others is worth keeping, too
        candidates.append(GrowthMember(name="joint", model=joint, towards=towards(joint, usable)))
        candidates.append(_as_it_is("deployed", deployed))
    by_code = [_as_it_is(name, indexed_by.get(name, deployed)) for name in context.images.vertical_names]
    members, scores = _choose(context, candidates, by_code, is_new)
    new = context.images.vertical_names.index(vertical)

    def rows(positions: Positions, views: Positions) -> Rows:
        found = np.empty((len(positions), deployed.size), np.float32)
        for code in np.unique(context.images.verticals[positions]):
            here = context.images.verticals[positions] == code
            inputs = context.features.source.load(positions[here], views[here])
            if code == new:
                found[here] = _mean([_embed(context, member, inputs) for member in members])
            else:
                found[here] = _embed(context, by_code[code], inputs)
        return found

    key = fingerprint(
        {name: model.fingerprint for name, model in indexed_by.items()},
        [[member.name, member.model.fingerprint] for member in members],
        [deployed.fingerprint, config.align, config.unlabelled],
    )
    compute = by_parts(rows, ROWS_AT_ONCE)
    arrays = context.features.view_arrays(f"growth-targets-{key}", "learning targets", deployed.size, compute)
    return GrowthTargets(arrays=arrays, members=tuple(member.name for member in members), scores=scores)


def _choose(
    context: RunContext,
    candidates: Sequence[GrowthMember],
    by_code: Sequence[GrowthMember],
    is_new: Bool[np.ndarray, "N"],
) -> tuple[list[GrowthMember], dict[str, float]]:
    """The first candidate, and each further one that the validation images in the grown gallery speak for.

    It must raise their MAP@R, and make no vertical significantly worse by the paired comparison.
    """
    members = [candidates[0]]
    positions = np.flatnonzero((context.images.splits == "val") & (context.images.products >= 0))
    new = positions[is_new[positions]]
    if len(candidates) == 1 or not has_queries(context.images.products[new]):
        return members, {}
    gallery = np.empty((len(positions), candidates[0].towards.shape[1]), np.float32)
    for code in np.unique(context.images.verticals[positions]):
        here = context.images.verticals[positions] == code
        gallery[here] = _embed_clean(context, by_code[code], positions[here])
    rows = {member.name: _embed_clean(context, member, new) for member in candidates}

    def grown(ensemble: Sequence[GrowthMember]) -> Rows:
        vectors = gallery.copy()
        vectors[is_new[positions]] = _mean([rows[member.name] for member in ensemble])
        return vectors

    products, names = context.images.products[positions], context.images.names_of(positions)
    scores = {members[0].name: map_at_r(grown(members), products)}
    for candidate in candidates[1:]:
        tried = [*members, candidate]
        comparison = compare_vectors(grown(members), grown(tried), products, names, seed=context.recipe.seed)
        gain = comparison.merged["map_at_r"]
        scores[" + ".join(member.name for member in tried)] = gain.second
        if gain.difference > 0 and not any(comparison.worse(metric) for metric in METRICS):
            members = tried
    return members, scores


def _as_it_is(name: str, model: Embedder) -> GrowthMember:
    return GrowthMember(name=name, model=model, towards=np.eye(model.size, dtype=np.float32))


def _embed_clean(context: RunContext, member: GrowthMember, positions: Positions) -> Rows:
    return np.asarray(context.features.source.embed_all(member.model, positions) @ member.towards)


def _embed(context: RunContext, member: GrowthMember, inputs: torch.Tensor) -> Rows:
    rows: Rows = (context.features.source.infer(member.model, inputs) @ torch.from_numpy(member.towards)).numpy()
    return rows


def _mean(parts: Sequence[Rows]) -> Rows:
    """The mean of several models' rows, of unit length again."""
    return unit(np.sum(parts, axis=0))


def _towards(
    context: RunContext, specialist: Embedder, deployed: Embedder, fitted_on: Positions, *, align: bool
) -> Float[np.ndarray, "E D"]:
    """From a specialist's space to the deployed model's; distances stay unless the latter is smaller."""
    vectors = context.features.source.embed_all(specialist, fitted_on)
    basis = np.eye(deployed.size)
    if specialist.size != deployed.size:
        basis = fit_projection(vectors, deployed.size)
    if not align:
        return np.asarray(basis, np.float32)
    rotation = orthogonal_alignment(vectors @ basis, context.features.source.embed_all(deployed, fitted_on))
    return np.asarray(basis @ rotation, np.float32)
