"""A made-up run's models and decisions, for the tests of the report and of the tables in a terminal."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from univert.metrics.compare import METRICS, Comparison, Difference
from univert.metrics.evaluate import Evaluation, Interval, Metrics
from univert.training.combine.config import CombineConfig
from univert.training.combine.groups import Combination, Trial
from univert.training.evaluation import ComparedModel, Row, RowComparison
from univert.training.jobs import TrainedModel
from univert.training.targets.choice import Candidate, Choice, Step
from univert.training.targets.ensemble import Ensemble, TriedMember

KEYS = ("base", "specialists", "joint_triplet", "joint_proxy_nca", "unified_plain", "unified_labelled", "unified")

OWN = {"recall_at_1": 0.5, "map_at_r": 0.4, "queries": 40}


def interval(value, spread=0.02):
    return Interval(value, value - spread, value + spread)


def metrics(recall_at_1, *, queries=40):
    return Metrics(
        recall_at={k: interval(min(recall_at_1 + 0.05 * i, 0.97)) for i, k in enumerate((1, 2, 4, 8))},
        map_at_r=interval(recall_at_1 * 0.9), nmi=None, queries=queries, products=queries // 2,
    )  # fmt: skip


def model(key, merged, verticals, *, title=None, note="as it is"):
    """A row of the comparison; a vertical without queries has None."""
    known = [value for value in verticals.values() if value is not None]
    row = Row(
        key=key, title=title or key.replace("_", " ").capitalize(), note=note, vectors=lambda positions: positions,
        inputs=key, image_presentations=12_000, seconds=75.5, routed=key == "specialists",
    )  # fmt: skip
    evaluation = Evaluation(
        merged=metrics(merged),
        verticals={name: None if value is None else metrics(value) for name, value in verticals.items()},
        mean_within={"recall_at_1": sum(known) / len(known) if known else merged},
    )
    return ComparedModel(row=row, evaluation=evaluation)


def with_unseen_brands(one, recall_at_1):
    """The same row with queries of brands never seen."""
    evaluation = replace(one.evaluation, unseen_brands=metrics(recall_at_1, queries=12))
    return ComparedModel(row=one.row, evaluation=evaluation)


def all_models(verticals=("bags", "shoes")):
    """Seven rows, the last the best."""
    return [model(key, 0.3 + 0.05 * i, dict.fromkeys(verticals, 0.35 + 0.05 * i)) for i, key in enumerate(KEYS)]


def difference(change, verdict="same", *, metric="recall_at_1", spread=0.02):
    return Difference(
        metric=metric, first=0.5, second=0.5 + change, difference=change, low=change - spread,
        high=change + spread, p_value=0.2, p_adjusted=0.4, verdict=verdict, queries=40, products=20,
    )  # fmt: skip


def figures(change, verdict="same"):
    return {metric: difference(change, verdict, metric=metric) for metric in METRICS}


def comparison(merged=(0.0, "same"), **verticals):
    """Of (change, verdict) pairs."""
    by_vertical = {name: figures(*pair) for name, pair in verticals.items()}
    return Comparison(merged=figures(*merged), verticals=by_vertical, tolerance=0.01, level=0.95)


def against(first, found, *, second="unified", title=None):
    return RowComparison(title=title or f"{second} against {first}", first=first, second=second, comparison=found)


def choice(titles=("Plain", "Ensemble"), reason="Ensemble: better and nowhere worse", against_specialists=None):
    record = {"image_presentations": 1000, "seconds": 12.0}
    trained = TrainedModel(name="unified", key="key", record=record, folder=Path(), device=torch.device("cpu"))
    candidates = tuple(
        Candidate(key=key, title=title, model=trained) for key, title in zip(("plain", "ensemble"), titles, strict=True)
    )
    found = comparison((0.05, "better"), bags=(0.06, "better"), shoes=(-0.02, "same"))
    step = Step(
        champion="plain", challenger="ensemble", taken=True, reason="better and nowhere worse", comparison=found
    )
    return Choice(
        chosen=candidates[1], candidates=candidates, steps=(step,), reason=reason,
        figures={"plain": {"recall_at_1": 0.41, "map_at_r": 0.31, "mean_within_recall_at_1": 0.51}},
        against_specialists=against_specialists,
    )  # fmt: skip


def ensemble(title="Joint Proxy-NCA"):
    def tried(name, title, kept, reason, found, presentations):
        return TriedMember(
            name=name, title=title, kept=kept, reason=reason, difference=found, image_presentations=presentations
        )  # fmt: skip

    members = (
        tried("own", "Specialists", True, "the first", None, 500),
        tried("joint", title, True, "gains", difference(0.031, "better", metric="map_at_r"), 700),
        tried("far", "Another seed", False, "nothing gained", None, 0),
    )
    return Ensemble(members=(), tried=members)


def combination(names=("bags", "shoes", "hats")):
    """The first two together; the third, refused for what it does to MAP@R of the first, by itself."""
    a, b, c, *more = names
    harm = {"recall_at_1": difference(0.001), "map_at_r": difference(-0.07, "worse", metric="map_at_r")}
    trials = (
        Trial(
            number=1, group=(a,), added=b, accepted=True, reason="no harm",
            differences={a: figures(0.02), b: figures(-0.005)},
        ),
        Trial(
            number=2, group=(a, b), added=c, accepted=False, reason="harm",
            differences={a: harm, b: figures(-0.09, "worse"), c: figures(0.0)},
        ),
    )  # fmt: skip
    individual = {a: OWN, b: OWN, c: None, **dict.fromkeys(more, OWN)}
    return Combination(
        config=CombineConfig(), groups=((a, b), (c, *more)), individual=individual,
        trials=trials, path=(f"{a} + {b}: accepted", f"{a} + {b} - {c}: refused"),
    )  # fmt: skip


def content(**changes):
    """All that a report shows: a finished run, and its models in one."""
    found = comparison((0.05, "better"), bags=(0.06, "better"), shoes=(-0.04, "worse"))
    results = {
        "notes": ["no specialist for hats: one needs 2 products"],
        "trained_on": {"images": 1234, "products": 321, "unlabelled": 56},
        "recipe_toml": "seed = 0\n\n[model]\nsize = 256\n",
        "curves": {
            "specialists/shoes": {
                "step": list(range(1, 501)), "loss": [1 / step for step in range(1, 501)],
                "val_map_at_r": [[100, 0.4], [200, 0.5], [300, 0.45]], "best_step": 200,
            },
            "unified": {"step": [1, 2], "loss": [0.5, float("nan")], "val_map_at_r": [], "best_step": None},
        },
        "ensemble": {"learned_from": True}, "catalogue_fingerprint": "abc",
        "versions": {"torch": "2.15"}, "device": "cpu", "seed": 0, "finished": "now",
    }  # fmt: skip
    values = {
        "compared": tuple(all_models()),
        "comparisons": (
            *(against(key, found) for key in ("specialists", "base")), against("base", found, second="specialists"),
        ),
        "distortion": {"energy_kept": 0.9734, "order_kept": 0.99}, "results": results,
        "choice": choice(), "ensemble": ensemble(), "combination": combination(),
    }  # fmt: skip
    found = SimpleNamespace(**{**values, **changes})
    found.models = found
    return found
