"""The target map: from the members' embeddings to the learning target, fitted on training images.

Each member's space is projected to the unified model's width and rotated towards a common reference. Then the members
are put side by side and projected to that width again. All of that is linear: each member (and vertical) has one
matrix, and the target is the sum of the members' mapped embeddings, made a unit vector again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from univert.core.files import fingerprint
from univert.data.samplers import balanced_sample, step_rng
from univert.training.run_context import RunContext
from univert.training.targets.alignment import fit_projection, orthogonal_alignment, pca_reduced, unit
from univert.training.targets.config import UnifyConfig
from univert.training.targets.members import Member
from univert.training.view_arrays import Positions, Rows

FIT_IMAGES = 10_000
"""Rotations and projections are fitted on at most so many training images: their directions need no more."""
FIT_SEED = 17

Matrix = Float[np.ndarray, "W D"]


@dataclass(frozen=True, kw_only=True)
class TargetMap:
    """From the members' embeddings to the learning target.

    Attributes:
        members: whose embeddings count.
        matrices: for each member one matrix, or one for each vertical if the member has a model for each.
    """

    members: tuple[Member, ...]
    matrices: tuple[tuple[Matrix, ...], ...]

    @property
    def size(self) -> int:
        """Width of the targets."""
        return int(self.matrices[0][0].shape[1])

    def rows(
        self, context: RunContext, positions: Positions, views: Positions, weights: Float[np.ndarray, "B K"]
    ) -> Rows:
        """The learning targets of some images, each in a view.

        `weights` are how much the specialists of each vertical have to say about each image.
        """
        # in torch throughout: its threads and those of NumPy's matrix product would get in each other's way
        total, shares = torch.zeros(len(positions), self.size), torch.from_numpy(weights)
        embed = self._embeddings(context, positions, views, weights)
        everything = torch.arange(len(positions))
        for member, matrices in zip(self.members, self.matrices, strict=True):
            if not member.by_vertical:
                total += embed(member, 0, everything) @ torch.from_numpy(matrices[0])
                continue
            for vertical in np.flatnonzero(weights.any(axis=0)):
                here = shares[:, vertical].nonzero().squeeze(1)
                own = embed(member, int(vertical), here)
                total[here] += shares[here, vertical, None] * (own @ torch.from_numpy(matrices[vertical]))
        return unit(total.numpy()).astype(np.float32)

    def energy_kept(self, context: RunContext, positions: Positions) -> float:
        """The share of the embeddings' squared length that projecting and joining leaves, on at least one image.

        Of images that the map was fitted on it says too much: with fewer images than columns, next to all of it.
        """
        verticals = context.images.verticals[positions]
        targets, energy = np.zeros((len(positions), self.size)), 0.0
        for member, matrices in zip(self.members, self.matrices, strict=True):
            embeddings = member.vectors(context).clean(positions).astype(np.float64)
            energy += float((embeddings**2).sum()) / len(self.members)
            for number, matrix in enumerate(matrices):
                here = verticals == number if member.by_vertical else slice(None)
                targets[here] += embeddings[here, : len(matrix)] @ matrix
        return float((targets**2).sum() / energy)

    def _embeddings(
        self, context: RunContext, positions: Positions, views: Positions, weights: Float[np.ndarray, "B K"]
    ) -> Callable[[Member, int, Tensor], Float[Tensor, "R W"]]:
        """Gives some rows' embeddings by one of a member's models: kept ones where there are, else new ones."""
        verticals = context.images.verticals[positions]
        own = verticals >= 0
        if not views.any() and own.all() and (weights[np.arange(len(own)), verticals] == 1).all():
            # of the images as they are, each by its own vertical's model: the map was fitted on these
            return lambda member, number, here: torch.from_numpy(
                member.vectors(context).clean(positions[here.numpy()])[:, : member.embedders[number].size]
            )
        inputs = context.features.source.load(positions, views)
        return lambda member, number, here: context.features.source.infer(member.embedders[number], inputs[here])


def fit_target_map(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> TargetMap:
    """Fit rotations and projections on training images, once in a process."""
    key = f"target map {fingerprint(map_inputs(context, members, config))}"
    return context.stages.once(key, lambda: _fit(context, members, config))


def map_inputs(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> list[object]:
    """All that a target map depends on besides the images."""
    own = [member.key for member in members]
    return [own, config.align, config.unlabelled, context.recipe.data.unsorted, context.target_size]


def _fit(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> TargetMap:
    positions, size = _fitted_on(context, config), context.target_size
    spaces = [_Space.of(context, member, positions, size) for member in members]
    if config.align:
        joint = [space for member, space in zip(members, spaces, strict=True) if not member.by_vertical]
        reference = joint[0].projected.copy() if joint else pca_reduced(context.features.base_vectors(positions), size)
        for space in spaces:
            space.rotate(reference)
    return _join(tuple(members), spaces)


@dataclass(kw_only=True)
class _Space:
    """A member's embeddings of the images that the map is fitted on.

    `projected` has them at the common width; `parts` holds, for each matrix, which rows are its own.
    """

    projected: Float[np.ndarray, "N D"]
    matrices: list[Matrix]
    parts: list[np.ndarray]

    @classmethod
    def of(cls, context: RunContext, member: Member, positions: Positions, size: int) -> _Space:
        """Embed the images, and project every model's space to the common width."""
        parts = [np.arange(len(positions))]
        if member.by_vertical:
            verticals = context.images.verticals[positions]
            parts = [np.flatnonzero(verticals == number) for number in range(len(member.models))]
        raw = member.vectors(context).clean(positions)
        projected = np.zeros((len(positions), size))
        matrices = []
        for embedder, here in zip(member.embedders, parts, strict=True):
            own = raw[here, : embedder.size]
            matrices.append(fit_projection(own, size))
            projected[here] = unit(own @ matrices[-1])
        return cls(projected=projected, matrices=matrices, parts=parts)

    def rotate(self, reference: Float[np.ndarray, "N D"]) -> None:
        """Turn every model's space towards where the reference puts the same images."""
        for number, here in enumerate(self.parts):
            rotation = orthogonal_alignment(self.projected[here], reference[here])
            self.projected[here] = self.projected[here] @ rotation
            self.matrices[number] = self.matrices[number] @ rotation


def _join(members: tuple[Member, ...], spaces: list[_Space]) -> TargetMap:
    """Put the members side by side, and project that to the width of each."""
    share = 1 / np.sqrt(len(spaces))
    width = spaces[0].projected.shape[1]
    beside = np.concatenate([space.projected for space in spaces], axis=1) * share
    projection = np.eye(width) if len(spaces) == 1 else fit_projection(beside, width)
    matrices = tuple(
        tuple((matrix @ part * share).astype(np.float32) for matrix in space.matrices)
        for space, part in zip(spaces, np.split(projection, len(spaces)), strict=True)
    )
    return TargetMap(members=members, matrices=matrices)


def _fitted_on(context: RunContext, config: UnifyConfig) -> Positions:
    usable = context.images.is_train & (context.images.verticals >= 0)
    if not config.unlabelled:
        usable &= context.images.products >= 0
    positions = np.flatnonzero(usable)
    return balanced_sample(positions, context.images.verticals[positions], FIT_IMAGES, step_rng(FIT_SEED, 0))
