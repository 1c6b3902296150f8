"""The target map: from the members' embeddings to the learning target, fitted on training images.

Each member's space is rotated towards a common reference, which leaves its own distances as they are; then the
members are joined, side by side or by their mean, and brought to the unified model's width. All of that is linear, so
each member (and vertical) has one matrix, and the target is the sum of the members' mapped embeddings, made a unit
vector again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from univert.core.config import to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.data.samplers import balanced_sample, step_rng
from univert.training.run_context import RunContext
from univert.training.targets.alignment import PCAReference, generalised_procrustes, orthogonal_alignment
from univert.training.targets.config import TargetsConfig
from univert.training.targets.members import Member
from univert.training.targets.placement import place_apart, simplex_size
from univert.training.targets.projection import Distortion, fit_projection, measure_distortion, unit
from univert.training.view_arrays import Positions, Rows

FIT_IMAGES = 10_000
"""Rotations and projections are fitted on at most so many training images: their directions need no more."""
FIT_SEED = 17
SAME_IMAGES = 2_000
"""So many images are embedded by every specialist where their spaces are aligned with each other."""

Matrix = Float[np.ndarray, "W D"]


@dataclass(frozen=True, kw_only=True)
class TargetMap:
    """From the members' embeddings to the learning target.

    Attributes:
        members: whose embeddings count.
        matrices: for each member one matrix, or one for each vertical if it is routed.
        offset: how far the verticals are set apart; see `place_apart`.
        distortion: what joining and projecting does to the distances within a vertical: those of the targets against
            the mean of the members' own.
    """

    members: tuple[Member, ...]
    matrices: tuple[tuple[Matrix, ...], ...]
    offset: float
    distortion: Distortion

    @property
    def size(self) -> int:
        """Width of the targets before verticals are set apart."""
        return int(self.matrices[0][0].shape[1])

    def rows(
        self, context: RunContext, positions: Positions, views: Positions, weights: Float[np.ndarray, "B K"]
    ) -> Rows:
        """The learning targets of some images, each in a view.

        Args:
            context: the run.
            positions: of the images.
            views: of the images.
            weights: how much the specialists of each vertical have to say about each image.
        """
        # in torch throughout: its threads and those of NumPy's matrix product would get in each other's way
        total, shares = torch.zeros(len(positions), self.size), torch.from_numpy(weights)
        embed = self._embeddings(context, positions, views, weights)
        everything = torch.arange(len(positions))
        for member, matrices in zip(self.members, self.matrices, strict=True):
            if not member.routed:
                total += embed(member, 0, everything) @ torch.from_numpy(matrices[0])
                continue
            for vertical in np.flatnonzero(weights.any(axis=0)):
                here = shares[:, vertical].nonzero().squeeze(1)
                own = embed(member, int(vertical), here)
                total[here] += shares[here, vertical, None] * (own @ torch.from_numpy(matrices[vertical]))
        rows = unit(total.numpy())
        if self.offset:
            # the direction of an image between verticals is that of its likeliest
            homes = weights.argmax(axis=1)
            rows = place_apart(rows, homes, count=len(context.images.vertical_names), offset=self.offset)
        return rows.astype(np.float32)

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


def fit_target_map(
    context: RunContext, members: Sequence[Member], config: TargetsConfig, *, unlabelled: bool = True
) -> TargetMap:
    """Fit rotations and projection on training images, once in a process; see `learning_targets`."""
    if not members:
        raise BadInputError("the learning targets need at least one member, got none; see unify.members")
    key = f"target map {fingerprint(map_inputs(context, members, config, unlabelled))}"
    return context.stages.once(key, lambda: _fit(context, members, config, unlabelled))


def map_inputs(context: RunContext, members: Sequence[Member], config: TargetsConfig, unlabelled: bool) -> list[object]:
    """All that a target map depends on besides the images."""
    own = [member.key for member in members]
    return [own, to_plain(config), unlabelled, context.recipe.data.unsorted, context.target_size]


def _fit(context: RunContext, members: Sequence[Member], config: TargetsConfig, unlabelled: bool) -> TargetMap:
    positions = _fitted_on(context, unlabelled)
    count = len(context.images.vertical_names)
    size = context.target_size
    width = size - simplex_size(count) if config.offset else size
    if width < 1:
        raise BadInputError(
            f"unify.targets.offset needs {simplex_size(count)} of the {size} dimensions for {count} verticals; "
            "raise model.size or set offset = 0"
        )
    blocks = [_Block.of(context, member, positions, width, config, seed=FIT_SEED) for member in members]
    if config.align and config.reference == "specialists":
        _turn_together(context, members, blocks, positions, width)
    elif config.align:
        _align(context, blocks, positions, width, config)
    return _join(tuple(members), blocks, width, config, context.images.verticals[positions])


@dataclass(kw_only=True)
class _Block:
    """A member's clean rows while the map is being fitted.

    `raw` are its own embeddings, `plain` those at the common width; `groups` holds, for each matrix, which of the rows
    are its own.
    """

    raw: Float[np.ndarray, "N W"]
    plain: Float[np.ndarray, "N D"]
    matrices: list[Matrix]
    groups: list[np.ndarray]

    @classmethod
    def of(
        cls, context: RunContext, member: Member, positions: Positions, width: int, config: TargetsConfig, *, seed: int
    ) -> _Block:
        """Embed the images, and project every space to the common width."""
        verticals = context.images.verticals[positions]
        everything = np.arange(len(positions))
        groups = [everything]
        if member.routed:
            groups = [np.flatnonzero(verticals == number) for number in range(len(member.models))]
        raw = member.vectors(context).clean(positions)
        plain = np.zeros((len(positions), width))
        matrices = []
        for number, here in enumerate(groups):
            own = raw[here, : member.embedders[number].size]
            matrices.append(fit_projection(own, width, kind=config.projection, seed=seed))
            plain[here] = unit(own @ matrices[-1])
        return cls(raw=raw, plain=plain, matrices=matrices, groups=groups)

    def rotate(self, reference: Float[np.ndarray, "N D"]) -> None:
        """Turn every space towards where the reference puts the same images."""
        for number, here in enumerate(self.groups):
            rotation = orthogonal_alignment(self.plain[here], reference[here])
            self.plain[here] = self.plain[here] @ rotation
            self.matrices[number] = self.matrices[number] @ rotation


def _align(context: RunContext, blocks: list[_Block], positions: Positions, width: int, config: TargetsConfig) -> None:
    """Rotate all spaces towards the reference; in further rounds, towards the mean of all members."""
    joint = [block for block in blocks if len(block.groups) == 1]
    if joint and config.reference != "base":
        reference = joint[0].plain.copy()
    else:
        base = context.features.base_vectors(positions)
        reference = PCAReference(base, width)(base)
    for _ in range(config.rounds):
        for block in blocks:
            block.rotate(reference)
        reference = np.mean([block.plain for block in blocks], axis=0)


def _turn_together(
    context: RunContext, members: Sequence[Member], blocks: list[_Block], positions: Positions, width: int
) -> None:
    """Rotate all spaces by generalised Procrustes analysis: every model embeds the same images of all verticals."""
    same = positions
    if len(same) > SAME_IMAGES:
        same = np.sort(step_rng(FIT_SEED, 1).choice(positions, SAME_IMAGES, replace=False))
    base = context.features.base_vectors(same)
    embedded = {
        model.key: context.features.source.embed_all(model.embedder, same)
        for member in members
        for model in member.distinct
    }
    spaces = [
        unit(embedded[model.key] @ matrix)
        for member, block in zip(members, blocks, strict=True)
        for model, matrix in zip(member.models, block.matrices, strict=True)
    ]
    rotations, _ = generalised_procrustes(spaces, PCAReference(base, width)(base))
    turning = iter(rotations)
    for block in blocks:
        for number, here in enumerate(block.groups):
            rotation = next(turning)
            block.plain[here] = block.plain[here] @ rotation
            block.matrices[number] = block.matrices[number] @ rotation


def _join(
    members: tuple[Member, ...],
    blocks: list[_Block],
    width: int,
    config: TargetsConfig,
    verticals: Int64[np.ndarray, "N"],
) -> TargetMap:
    """Join the members side by side or by their mean, at the width of the unified model."""
    share = 1 / np.sqrt(len(blocks))
    beside = np.concatenate([block.plain for block in blocks], axis=1) * share
    if len(blocks) == 1 or config.join == "mean":
        parts = [np.eye(width) / len(blocks)] * len(blocks)
    else:
        projection = fit_projection(beside, width, kind=config.projection, seed=FIT_SEED)
        parts = [part * share for part in np.split(projection, len(blocks))]
    matrices = tuple(
        tuple((matrix @ part).astype(np.float32) for matrix in block.matrices)
        for block, part in zip(blocks, parts, strict=True)
    )
    targets = np.zeros((len(verticals), width))
    for block, maps in zip(blocks, matrices, strict=True):
        for here, matrix in zip(block.groups, maps, strict=True):
            targets[here] += block.raw[here, : len(matrix)] @ matrix
    raw = np.concatenate([block.raw for block in blocks], axis=1) * share
    return TargetMap(
        members=members, matrices=matrices, offset=config.offset, distortion=measure_distortion(raw, targets, verticals)
    )


def _fitted_on(context: RunContext, unlabelled: bool) -> Positions:
    usable = context.images.is_train & (context.images.verticals >= 0)
    if not unlabelled:
        usable &= context.images.products >= 0
    positions = np.flatnonzero(usable)
    positions = balanced_sample(positions, context.images.verticals[positions], FIT_IMAGES, step_rng(FIT_SEED, 0))
    empty = sorted(set(range(len(context.images.vertical_names))) - set(context.images.verticals[positions].tolist()))
    if empty:
        names = [context.images.vertical_names[number] for number in empty]
        raise BadInputError(
            f"no training images to align on in: {', '.join(names)}; add some, or leave the vertical out"
        )
    return positions
