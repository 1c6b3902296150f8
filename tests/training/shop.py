"""A run on the drawn catalogue with members of several kinds and sizes, trained once, for tests that only read it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.training.combine.config import CombineConfig
from univert.training.label_config import SpecialistsConfig
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_joint, train_specialist
from univert.training.targets.config import UnifyConfig
from univert.training.targets.learning_targets import learning_targets
from univert.training.targets.members import Member

SIZE = 8
"""Width of the unified model of the shop's recipe."""


def modified(folder: Path) -> dict[str, int]:
    """When each model below a folder was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A context and members; `mixed` has one specialist narrower than the unified model and one wider."""

    context: RunContext
    own: Member
    mixed: Member
    wide: Member
    joint: Member

    @property
    def everything(self) -> np.ndarray:
        return np.arange(len(self.context.images.catalogue))


def open_shop(catalogue: Catalogue, recipe: Recipe, path: Path) -> Shop:
    context = RunContext(Run(path), catalogue, replace(recipe, combine=CombineConfig(mode="off")))
    return Shop(
        context=context,
        own=specialists(context),
        mixed=specialists(context, "mixed", sizes={"discs": 4, "squares": 12}),
        wide=specialists(context, "wide", size=20),
        joint=joint_member(context),
    )


def specialists(context: RunContext, folder: str = "specialists", **changes: object) -> Member:
    """The specialists of a run of its own, in a folder beside that of the context."""
    config: SpecialistsConfig = replace(context.recipe.specialists, **changes)  # type: ignore[arg-type]
    recipe, run = replace(context.recipe, specialists=config), Run(context.run.path / folder)
    other = RunContext(run, context.images.catalogue, recipe, features=context.features)
    trained = {
        name: replace(train_specialist(other, name), name=f"{folder}/{name}") for name in context.images.vertical_names
    }
    return Member.of_specialists(context, trained)


def joint_member(context: RunContext) -> Member:
    model = train_joint(context, "proxy-nca", 200)
    return Member.named("joint:proxy-nca", model)


def clean_targets(shop: Shop, members: Sequence[Member], **changes: object) -> np.ndarray:
    """The learning targets of all images as they are."""
    config = UnifyConfig(**changes)  # type: ignore[arg-type]
    return learning_targets(shop.context, members, config).clean(shop.everything).astype(np.float64)


def raw(shop: Shop, member: Member, vertical: int) -> np.ndarray:
    """A member's own embeddings of all images, as if all were of one vertical."""
    model = member.models[vertical if member.by_vertical else 0]
    return shop.context.features.source.embed_all(model.embedder, shop.everything).astype(np.float64)


def fitted_on(shop: Shop) -> np.ndarray:
    """The images that a target map is fitted on."""
    return np.flatnonzero(shop.context.images.is_train)
