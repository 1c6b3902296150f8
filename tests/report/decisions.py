"""Made-up decisions of a run for the tests of the report and the console."""

from univert.metrics.compare import METRICS, Comparison, Difference

VERTICALS = ("bags", "shoes")


def difference(change, verdict="same", *, metric="recall_at_1", spread=0.02):
    return Difference(
        metric=metric, first=0.5, second=0.5 + change, difference=change, low=change - spread,
        high=change + spread, p_value=0.2, p_adjusted=0.4, verdict=verdict, queries=40, products=20,
    )  # fmt: skip


def figures(change, verdict="same"):
    return {metric: difference(change, verdict, metric=metric) for metric in METRICS}


def comparison(merged=(0.0, "same"), **verticals):
    """Of (change, verdict) pairs."""
    return Comparison(
        merged=figures(*merged),
        verticals={name: figures(*pair) for name, pair in verticals.items()},
        tolerance=0.01,
        level=0.95,
    )


def paired(first, found, *, second="unified", title=None):
    title = title or f"{second} against {first}"
    return {"title": title, "first": first, "second": second, "comparison": found.to_dict()}


def choice(titles=("Plain", "Ensemble"), reason="Ensemble: better and nowhere worse"):
    keys = ("plain", "ensemble")
    return {
        "split": "val", "tolerance": 0.01, "chosen": "ensemble", "reason": reason,
        "candidates": [
            {"key": key, "title": title, "recall_at_1": 0.41, "map_at_r": 0.31, "mean_within_recall_at_1": 0.51,
             "image_presentations": 1000, "seconds": 12.0}
            for key, title in zip(keys, titles, strict=True)
        ],
        "steps": [
            {"champion": "plain", "challenger": "ensemble", "taken": True, "reason": "better and nowhere worse",
             "comparison": comparison((0.05, "better"), bags=(0.06, "better"), shoes=(-0.02, "same")).to_dict()}
        ],
    }  # fmt: skip


def ensemble(title="Joint Proxy-NCA"):
    gain = difference(0.031, "better", metric="map_at_r").to_dict()
    return {
        "members": [
            {"name": "own", "title": "Specialists", "kept": True, "reason": "the first", "difference": None,
             "image_presentations": 500},
            {"name": "joint", "title": title, "kept": True, "reason": "gains", "difference": gain,
             "image_presentations": 700},
            {"name": "far", "title": "Another seed", "kept": False, "reason": "over the budget", "difference": None,
             "image_presentations": 0},
        ],
        "budget_presentations": 2000,
        "distortion": {"energy_kept": 0.9734, "order_kept": 0.99},
    }  # fmt: skip


def trial(number, group, added, changes, *, accepted, reason="as it is"):
    """`changes`: by vertical the differences by metric."""
    return {
        "number": number, "group": list(group), "added": added, "verticals": [*group, added],
        "recall_at_1": {name: values["recall_at_1"].second for name, values in changes.items()},
        "map_at_r": {name: values["map_at_r"].second for name, values in changes.items()},
        "differences": {
            name: {metric: one.to_dict() for metric, one in values.items()} for name, values in changes.items()
        },
        "accepted": accepted, "reason": reason,
    }  # fmt: skip


def combination(names=("bags", "shoes", "hats")):
    """The first two together; the third, refused for what it does to MAP@R of the first, by itself."""
    a, b, c = names
    first = trial(1, [a], b, {a: figures(0.02), b: figures(-0.005)}, accepted=True)
    harm = {"recall_at_1": difference(0.001), "map_at_r": difference(-0.07, "worse", metric="map_at_r")}
    second = trial(2, [a, b], c, {a: harm, b: figures(-0.09, "worse"), c: figures(0.0)}, accepted=False)
    return {
        "mode": "probe", "order": "difficulty", "tolerance": 0.01, "budget_trials": 36,
        "groups": [[a, b], [c]],
        "individual": {name: {"recall_at_1": 0.5, "map_at_r": 0.4, "queries": 40} for name in sorted(names)},
        "trials": [first, second],
        "path": [f"{a} + {b}: accepted; as it is", f"{a} + {b} - {c}: refused; as it is"],
    }  # fmt: skip
