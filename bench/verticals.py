"""Many verticals, one model: what each choice is worth on the emoji catalogue, for docs/verticals.md.

    OMP_NUM_THREADS=2 python bench/verticals.py [--seeds 0 1 2] [--out .work/bench-frozen]

Goes on from runs of the main job with a frozen base network (and makes them if they are not there): trains one joint
triplet model on 1, 2, ... verticals, variations of the unified model, and measures what one model costs against
specialists behind a predictor of verticals. The best step is chosen on the validation split, whose figures stand beside
those of the test split: choices are made on the former. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt

from common import emoji_catalogue, mean_and_spread
from map_figure import save_map_figure
from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.main_job import train
from univert.metrics.per_query import query_outcomes
from univert.metrics.separation import separation
from univert.training.jobs import TrainedModel
from univert.training.label_config import SpecialistsConfig
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_joint, train_on_labels, train_specialist
from univert.training.stages import Models, train_models
from univert.training.targets.config import UnifyConfig
from univert.training.targets.learning_targets import learning_targets, targets_by_predicted_vertical
from univert.training.targets.members import Member
from univert.training.unify import images_to_learn_from, train_unified

HERE = Path(__file__).parent
SIZES = (64, 128, 256, 512)
TIMED_QUERIES = 60
Figures = dict[str, float]


def measure(context: RunContext, embed: Callable[[np.ndarray], np.ndarray], split: str) -> Figures:
    """Merged Recall@1 and MAP@R, and the mean within verticals, on one split, in per cent."""
    here = np.flatnonzero((context.images.splits == split) & (context.images.products >= 0))
    images = context.images
    outcomes = query_outcomes(embed(here), images.products[here], images.names_of(here), queries=images.asking(here))
    within = [outcome.hits(1).mean() for outcome in outcomes.verticals.values() if outcome is not None]
    precision = outcomes.merged.average_precision_at_r
    assert precision is not None
    return {
        "R@1": 100 * float(outcomes.merged.hits(1).mean()),
        "MAP@R": 100 * float(precision.mean()),
        "within R@1": 100 * float(np.mean(within)),
    }


def of_model(context: RunContext, model: TrainedModel) -> dict[str, Figures]:
    """A model's figures on both splits."""
    return {
        split: measure(context, lambda at: context.features.source.embed_all(model.embedder, at), split)
        for split in ("val", "test")
    }


def variants(default: UnifyConfig) -> dict[str, UnifyConfig]:
    """What is varied, one thing at a time; the default comes first."""
    return {
        "the default": default,
        "a random start, a head of usual width": replace(default, start="random"),
        "labelled images only": replace(default, unlabelled=False),
        "fixed targets, of the image as it is": replace(default, consistent=False),
        "no alignment": replace(default, align=False),
    }


def train_variants(context: RunContext, models: Models) -> dict[str, dict[str, Figures]]:
    """Each variation's figures."""
    found = {}
    for number, (title, config) in enumerate(variants(context.recipe.unify).items()):
        name = f"bench/unified-{number}"
        found[title] = of_model(context, train_unified(context, models.ensemble.members, name=name, config=config))
    return found


def train_sizes(context: RunContext, models: Models) -> dict[str, dict[str, Figures]]:
    """The unified model at several widths; the models it learns from keep theirs."""
    found = {}
    for size in SIZES:
        other = RunContext(
            context.run,
            context.images.catalogue,
            replace(context.recipe, model=replace(context.recipe.model, size=size)),
        )
        model = train_unified(other, models.ensemble.members, name=f"bench/size-{size}", config=other.recipe.unify)
        found[f"{size}-d"] = of_model(other, model)
    return found


def joint_from_data(context: RunContext, models: Models) -> dict[str, Figures]:
    """The joint model by the loss that does best on the emoji: Proxy-NCA whose proxies start at the data."""
    steps = models.joint["proxy-nca"].record["steps"]
    loop = replace(context.recipe.specialists.loop, epochs=1, min_steps=max(steps, 1))
    config = SpecialistsConfig(loss="proxy-nca", proxy_start="data", loop=loop)
    return of_model(context, train_on_labels(context, config, name="bench/joint-from-data"))


def joint_as_wide(context: RunContext, models: Models) -> dict[str, Figures]:
    """The joint Proxy-NCA model, its head as wide as the unified model's."""
    config = replace(context.recipe.model, hidden_sizes=models.unified.embedder.config.hidden_sizes)
    recipe = replace(context.recipe, model=config)
    other = RunContext(context.run, context.images.catalogue, recipe, features=context.features)
    presentations = models.joint["proxy-nca"].record["image_presentations"]
    return of_model(context, train_joint(other, "proxy-nca", presentations, name="bench/joint-as-wide"))


def draw_map(context: RunContext, models: Models) -> list[str]:
    """FIG. 3 of the unified-embedding paper for the test images, and how far apart the verticals are, as numbers."""
    test = np.flatnonzero((context.images.splits == "test") & (context.images.verticals >= 0))
    own = learning_targets(context, [models.own], context.recipe.unify).clean(test)
    vectors = context.features.source.embed_all(models.unified.embedder, test)
    names = context.images.names_of(test)
    save_map_figure(HERE.parent / "docs" / "images" / "map.png", vectors, names, targets=own, total=18_000)
    lines = ["| | nearest other image of the same vertical |", "|---|---|"]
    spaces = {
        "specialists' targets": own,
        "unified model": vectors,
        "base network": context.features.base_vectors(test),
    }
    for title, space in spaces.items():
        found = separation(space, names)
        lines.append(f"| {title} | {100 * (found.purity or 0):.1f}% |")
    return lines


def joint_triplet(context: RunContext, order: Sequence[str], counts: Sequence[int] = ()) -> list[dict[str, float]]:
    """One triplet model on the first 1, 2, ... verticals: test Recall@1 within each vertical it was trained on."""
    test = np.flatnonzero((context.images.splits == "test") & (context.images.products >= 0))
    names = np.array(context.images.names_of(test))
    found = []
    for count in counts or range(1, len(order) + 1):
        model = train_specialist(context, *order[:count])
        vectors = context.features.source.embed_all(model.embedder, test)
        row = {}
        for name in order[:count]:
            here = names == name
            columns = context.images.products[test[here]], list(names[here])
            outcome = query_outcomes(vectors[here], *columns, queries=context.images.asking(test[here])).merged
            row[name] = 100 * float(outcome.hits(1).mean())
        found.append(row)
    return found


def routed_figures(context: RunContext, own: Member) -> dict[str, Figures]:
    """Specialists behind a prediction: each image goes to the specialist of its predicted vertical, query or not."""
    blocks = len(context.images.vertical_names)

    def embed(positions: np.ndarray) -> np.ndarray:
        homes = context.features.vertical_probabilities(positions).argmax(axis=1)
        vectors = np.zeros((len(positions), blocks, own.width), np.float32)
        for vertical in np.unique(homes):
            here = np.flatnonzero(homes == vertical)
            embedder = own.embedders[vertical]
            vectors[here, vertical, : embedder.size] = context.features.source.embed_all(embedder, positions[here])
        return vectors.reshape(len(positions), -1)

    return {split: measure(context, embed, split) for split in ("val", "test")}


def target_figures(context: RunContext, models: Models) -> dict[str, Figures]:
    """The learning targets themselves, the verticals predicted."""
    return {
        split: measure(
            context,
            lambda at: targets_by_predicted_vertical(context, models.ensemble.members, context.recipe.unify, at),
            split,
        )
        for split in ("val", "test")
    }


def costs(context: RunContext, models: Models) -> list[str]:
    """Parameters, time and bytes of one query: one model against specialists behind a predictor of verticals."""
    unified, own = models.unified.embedder.eval(), models.specialists
    heads = [list(embedder.head.parameters()) for embedder in own.embedders]
    network = sum(parameter.numel() for parameter in unified.base_network.parameters())
    predictor = (unified.feature_size + 1) * len(context.images.vertical_names)
    own_heads = sum(parameter.numel() for head in heads for parameter in head)
    positions = np.flatnonzero(context.images.splits == "test")[:TIMED_QUERIES]
    images = [
        context.features.loader.load(positions[at : at + 1], np.zeros(1, np.int64)).to(context.device)
        for at in range(len(positions))
    ]
    base = context.features.base.eval()

    def route(features: torch.Tensor) -> int:
        unit = torch.nn.functional.normalize(features).cpu().numpy()
        return int(context.features.router(unit).argmax())

    def one(image: torch.Tensor) -> None:
        unified(image)

    def shared(image: torch.Tensor) -> None:
        features = base.features(image)
        place = route(features)
        own.embedders[place].project(features)

    def separate(image: torch.Tensor) -> None:
        features = base.features(image)
        own.embedders[route(features)](image)

    times: dict[str, list[float]] = {"one": [], "shared": [], "separate": []}
    with torch.inference_mode():
        for image in images:  # side by side, so that a busy machine is as busy for all
            for name, run in (("one", one), ("shared", shared), ("separate", separate)):
                started = time.perf_counter()
                run(image)
                if context.device.type == "cuda":
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - started)
    median = {name: 1000 * statistics.median(values[5:]) for name, values in times.items()}
    count, total = len(own.distinct), sum(parameter.numel() for parameter in unified.parameters())
    rows = [
        ("one unified model", total, median["one"]),
        (
            f"{count} specialists' heads on one frozen network, and a predictor",
            network + own_heads + predictor,
            median["shared"],
        ),
        (
            f"{count} specialists, each its own network, and a predictor on another",
            (1 + count) * network + own_heads + predictor,
            median["separate"],
        ),
    ]
    lines = ["| | parameters | ms a query | over one model | bytes a vector |", "|---|---|---|---|---|"]
    for title, parameters, ms in rows:
        lines.append(
            f"| {title} | {parameters / 1e6:.1f} M | {ms:.1f} | {ms / median['one']:.2f} | {4 * unified.size} |"
        )
    return lines


def overhead(context: RunContext, models: Models) -> str:
    """Unify's time over one pass of its members and the training itself, all of it timed in this process."""
    place = context.run.path / "bench" / "overhead"
    place.mkdir(parents=True, exist_ok=True)
    run = Run(place / str(time.time_ns()))
    fresh = RunContext(run, context.images.catalogue, context.recipe, features=context.features)
    positions, views = [], []
    for view in range(context.recipe.data.views + 1):
        shown = np.flatnonzero(fresh.images.is_train) if view else np.arange(len(fresh.images.catalogue))
        positions.append(shown)
        views.append(np.full(len(shown), view))
    started = time.perf_counter()
    with torch.inference_mode():
        for shown, numbers in zip(positions, views, strict=True):
            for start in range(0, len(shown), 256):
                part, which = shown[start : start + 256], numbers[start : start + 256]
                inputs = fresh.features.source.load(part, which)
                for member in models.ensemble.members:
                    homes = fresh.images.verticals[part] if member.by_vertical else np.zeros(len(part), int)
                    for home in np.unique(homes):
                        fresh.features.source.run(member.embedders[home], inputs[torch.from_numpy(homes == home)])
    one_pass = time.perf_counter() - started
    config = context.recipe.unify
    started = time.perf_counter()
    model = train_unified(fresh, models.ensemble.members, name="unified", config=config)
    total = time.perf_counter() - started
    training = float(model.record["seconds"])
    ratio = total / (one_pass + training)
    return (
        f"Unify took {total:.1f} s: {ratio:.2f} times one pass of its {len(models.ensemble.members)} members over "
        f"{sum(map(len, positions)):,} images and views ({one_pass:.1f} s) and the training itself ({training:.1f} s). "
        f"Images to learn from: {len(images_to_learn_from(fresh, config)):,}."
    )


def table(runs: list[dict[str, dict[str, Figures]]]) -> list[str]:
    """A line a variation: mean and spread over the seeds."""
    lines = ["| | val R@1 | val MAP@R | test R@1 | test MAP@R | test within R@1 |", "|---|---|---|---|---|---|"]
    for title in runs[0]:
        cells = [
            mean_and_spread([run[title][split][name] for run in runs])
            for split, name in (
                ("val", "R@1"),
                ("val", "MAP@R"),
                ("test", "R@1"),
                ("test", "MAP@R"),
                ("test", "within R@1"),
            )
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def joint_table(runs: list[list[dict[str, float]]], order: Sequence[str]) -> list[str]:
    """Rows: verticals trained together; columns: Recall@1 in each of them."""
    lines = ["| verticals | " + " | ".join(order) + " | mean |", "|---" * (len(order) + 2) + "|"]
    for place, trained in enumerate(runs[0]):
        means = {name: statistics.mean(run[place][name] for run in runs) for name in trained}
        cells = [f"{means[name]:.1f}" if name in means else "" for name in order]
        lines.append(f"| {len(trained)} | {' | '.join(cells)} | {statistics.mean(means.values()):.1f} |")
    return lines


def draw(runs: list[list[dict[str, float]]], order: Sequence[str], path: Path) -> None:
    """Recall@1 of each vertical, as more verticals are trained with it."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(8.4, 4.6))
    counts = [len(trained) for trained in runs[0]]
    for number, name in enumerate(order):
        places = [place for place, trained in enumerate(runs[0]) if name in trained]
        values = [statistics.mean(run[place][name] for run in runs) for place in places]
        colour = plt.get_cmap("tab20")(number)
        axes.plot([counts[place] for place in places], values, marker="o", ms=4, lw=1.6, label=name, color=colour)
    means = [statistics.mean(statistics.mean(run[place].values()) for run in runs) for place in range(len(counts))]
    axes.plot(counts, means, color="black", lw=2.4, ls="--", label="mean of those trained")
    axes.set_xlabel("verticals trained together, in the order of the legend")
    axes.set_ylabel("test Recall@1 within the vertical, %")
    axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(".work/bench-frozen"))
    options = parser.parse_args()
    reuse_freed_memory()
    catalogue = emoji_catalogue()
    varied, sized, joined, against = [], [], [], []
    order: list[str] = []
    for seed in options.seeds:
        recipe = Recipe(seed=seed, base_network_learns="no")
        train(catalogue, options.out / f"seed-{seed}", recipe, report=False)
        context = RunContext(Run(options.out / f"seed-{seed}"), catalogue, recipe)
        models = train_models(context)
        if not order:
            order = sorted(context.images.vertical_names, key=lambda name: -_own_recall(models, name))
        joined.append(joint_triplet(context, order))
        varied.append(train_variants(context, models))
        sized.append(train_sizes(context, models))
        against.append(
            {
                "specialists behind a prediction of the vertical": routed_figures(context, models.specialists),
                "learning targets, verticals predicted": target_figures(context, models),
                "one joint Proxy-NCA model": of_model(context, models.joint["proxy-nca"]),
                "the same, its head as wide as the unified model's": joint_as_wide(context, models),
                "the same, proxies started from the data": joint_from_data(context, models),
                "unified": of_model(context, models.unified),
            }
        )
        print(f"seed {seed}: {against[-1]['unified']['test']}", flush=True)
    lines = [
        "# Many verticals, one model: the emoji catalogue",
        "",
        f"Per cent, mean (± standard deviation) over the seeds {', '.join(map(str, options.seeds))}. "
        "R@1 and MAP@R are those of the merged gallery.",
        "",
        "## The unified model, one thing changed at a time",
        "",
        *table(varied),
        "",
        "## Width of the embedding",
        "",
        *table(sized),
        "",
        "## One model against its rivals",
        "",
        *table(against),
        "",
        *costs(context, models),
        "",
        overhead(context, models),
        "",
        "## How far apart the verticals are",
        "",
        "Test split, last seed.",
        "",
        *draw_map(context, models),
        "",
        "## One joint triplet model on more and more verticals",
        "",
        "Test Recall@1 within each vertical; every vertical brings as many steps as its specialist has.",
        "",
        *joint_table(joined, order),
        "",
        f"Catalogue {catalogue.fingerprint}, torch {torch.__version__}.",
    ]
    write_atomic(HERE / "results" / "verticals.md", "\n".join(lines) + "\n")
    draw(joined, order, HERE.parent / "docs" / "images" / "joint-triplet.png")
    print("\n".join(lines))


def _own_recall(models: Models, name: str) -> float:
    figures = models.combination.individual[name]
    return figures["recall_at_1"] if figures else 0.0


if __name__ == "__main__":
    main()
