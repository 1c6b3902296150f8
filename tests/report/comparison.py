"""Made-up comparisons for the tests of the report."""

from univert.metrics import figures


def interval(value, spread=0.02):
    return figures.Interval(value, value - spread, value + spread)


def metrics(recall_at_1, *, nmi=None, spread=0.02, queries=40):
    return figures.Metrics(
        recall_at={k: interval(min(recall_at_1 + 0.05 * i, 0.97), spread) for i, k in enumerate((1, 2, 4, 8))},
        map_at_r=interval(recall_at_1 * 0.9, spread),
        nmi=None if nmi is None else figures.Interval(nmi),
        queries=queries,
        products=queries // 2,
    )


def row(key, merged, verticals, *, title=None, spread=0.02, **extra):
    """A row of `evaluation.json`; None figures where a value is None."""

    def plain(value):
        return None if value is None else metrics(value, spread=spread).to_dict()

    known = [value for value in verticals.values() if value is not None]
    return {
        "key": key,
        "title": title or key.replace("_", " ").capitalize(),
        "note": "",
        "evaluation": {
            "merged": plain(merged),
            "verticals": {name: plain(value) for name, value in verticals.items()},
            "mean_within": {"recall_at_1": sum(known) / len(known)} if known else {},
        },
        "image_presentations": 12_000,
        "seconds": 75.5,
        **extra,
    }


def results(rows, *, best_key="unified", **extra):
    """The content of an `evaluation.json`."""
    return {
        "format": 1,
        "split": "test",
        "catalogue": {"images": 1234, "products": 321, "unlabelled": 56},
        "rows": rows,
        "best_key": best_key,
        "recipe_toml": "seed = 0\n\n[model]\nsize = 256\n",
        "curves": {
            "specialists/shoes": {
                "step": list(range(1, 501)),
                "loss": [1 / step for step in range(1, 501)],
                "val_map_at_r": [[100, 0.4], [200, 0.5], [300, 0.45]],
                "best_step": 200,
            },
            "unified": {"step": [1, 2], "loss": [0.5, float("nan")], "val_recall_at_1": []},
        },
        **extra,
    }


def full_comparison(verticals=("bags", "shoes")):
    """Seven rows, the last the best."""
    keys = ("base", "specialists", "joint_triplet", "joint_proxy_nca", "unified_plain", "unified_labelled", "unified")
    return [row(key, 0.3 + 0.05 * i, dict.fromkeys(verticals, 0.35 + 0.05 * i)) for i, key in enumerate(keys)]
