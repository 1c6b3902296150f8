"""Commands by which people rate triplets, and by which their answers are used."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from univert.cli.options import Json, Overwrite, app
from univert.core.terminal import print_table

if TYPE_CHECKING:
    from rich.table import Table

    from univert.curation.agreement import Summary

ratings_app = typer.Typer(
    help="What raters said: look at it, take it elsewhere, make clean triplets.", no_args_is_help=True
)
app.add_typer(ratings_app, name="ratings")

Ratings = Annotated[Path, typer.Argument(help="A file of ratings.")]
GoldAccuracy = Annotated[
    float, typer.Option(min=0, max=1, help="Set raters aside who have less than this share of gold questions right.")
]
Posterior = Annotated[float, typer.Option(min=0, max=1, help="How probable it must be that a triplet is right.")]


@app.command(epilog="Example: univert rate triplets.csv shop.lance --gold gold.csv --raters 3")
def rate(
    triplets: Annotated[Path, typer.Argument(help="Image ids: a table with anchor, positive, negative.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue with the pictures.")],
    out: Annotated[
        Path | None, typer.Option(help="The file of ratings; goes on where it was (TRIPLETS with .ratings).")
    ] = None,
    raters: Annotated[int, typer.Option(min=1, help="How many people rate each triplet.")] = 3,
    gold: Annotated[
        Path | None,
        typer.Option(help="Questions with known answers: a table like TRIPLETS with same and different, yes or no."),
    ] = None,
    gold_share: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the questions that are gold.")] = 0.1,
    on_bad: Annotated[
        str, typer.Option(help="Triplets that cannot be used: reject the file, or skip them (see OUT.rejected.csv).")
    ] = "reject",
    keys: Annotated[
        Path | None, typer.Option(help="A file of lines of `univert key NAME`: only these people. Else any name rates.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
) -> None:
    """Serve a page on which people rate triplets: the same product, really another?"""
    from univert.core.errors import BadInputError
    from univert.data.catalogue import Catalogue
    from univert.data.gold import add_gold
    from univert.data.ratings import Ratings
    from univert.data.triplets import read_clean_triplets

    try:
        from univert.serving.rating import RatingSettings, read_keys, run_rating_server
    except ImportError as error:
        raise BadInputError(
            f"this needs packages that are missing ({error.name}): pip install 'univert[curate]'"
        ) from None

    accepted = () if keys is None else read_keys(keys)
    out = out or triplets.with_suffix(".ratings")
    catalogue = Catalogue.open(cat)
    rejected = out.with_name(f"{out.name}.rejected.csv") if on_bad == "skip" else None
    found = read_clean_triplets(triplets, catalogue, on_bad=on_bad, rejected_csv=rejected)
    typer.echo(found.report.summary(), err=True)
    ids = (catalogue.column("id")[images].tolist() for images in (found.anchors, found.positives, found.negatives))
    rows = list(zip(*ids, found.verticals.tolist(), strict=True))
    random.Random(0).shuffle(rows)  # noqa: S311 - so that a beginning is a fair sample of all
    with Ratings(out, create=True) as ratings:
        ratings.choose(raters=raters, gold_share=gold_share)
        if gold is not None:
            typer.echo(f"{gold}: {add_gold(ratings, gold, catalogue):,} gold questions", err=True)
        ratings.add(rows)
    run_rating_server(RatingSettings(
        ratings=out, catalogue=cat, keys=accepted, host=host, port=port, workers=workers,
    ))  # fmt: skip


@ratings_app.command(epilog="Example: univert ratings summary triplets.ratings")
def summary(
    path: Ratings, gold_accuracy: GoldAccuracy = 0.7, posterior: Posterior = 0.95, as_json: Json = False
) -> None:
    """How far the work is, how well raters agree, and who was set aside."""
    from univert.core.config import to_plain
    from univert.curation.agreement import Agreement
    from univert.data.ratings import Ratings

    with Ratings(path) as ratings:
        found = Agreement(ratings, gold_accuracy=gold_accuracy).summary(posterior)
    if as_json:
        typer.echo(json.dumps(to_plain(found), indent=1))
        return
    for table in _tables(found):
        print_table(table)


@ratings_app.command(epilog="Example: univert ratings clean triplets.ratings clean.csv --posterior 0.98")
def clean(
    path: Ratings,
    out: Annotated[Path, typer.Argument(help="The CSV file to write, for univert finetune --triplets.")],
    posterior: Posterior = 0.95,
    gold_accuracy: GoldAccuracy = 0.7,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the triplets that people found right; exit 1 if there is none."""
    from univert.core.files import check_free, write_atomic
    from univert.curation.agreement import Agreement, triplets_csv
    from univert.data.ratings import Ratings

    check_free(out, overwrite=overwrite)
    with Ratings(path) as ratings:
        agreement = Agreement(ratings, gold_accuracy=gold_accuracy)
        progress = ratings.progress()
    found = agreement.clean(posterior)
    for name, reason in agreement.set_aside.items():
        typer.echo(f"set aside: {name}: {reason}", err=True)
    if found:
        write_atomic(out, triplets_csv(found))
    if as_json:
        typer.echo(json.dumps({"triplets": progress.triplets, "rated": progress.rated, "clean": len(found)}))
    else:
        typer.echo(f"{len(found):,} clean triplets of {progress.rated:,} rated, {progress.triplets:,} in all")
    if not found:
        typer.echo("univert: no triplet is clean, so nothing was written; rate more, or lower --posterior", err=True)
        raise typer.Exit(1)


@ratings_app.command(
    "export",
    epilog="Example: univert ratings export triplets.ratings tasks.json --pictures 'https://shop.example/p/{id}.jpg'",
)
def export_command(
    path: Ratings,
    out: Annotated[Path, typer.Argument(help=".csv: all answers; .json: Label Studio's tasks, and a .xml beside it.")],
    pictures: Annotated[
        str | None, typer.Option(help="For Label Studio: the address of a picture, with {id} where its id goes.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write triplets and answers for other programs; at any time, also while people rate."""
    from univert.core.errors import BadInputError
    from univert.core.files import check_free, write_atomic
    from univert.curation.agreement import Agreement, answers_csv
    from univert.curation.label_studio import LABELLING_CONFIG, tasks
    from univert.data.ratings import Ratings

    check_free(out, overwrite=overwrite)
    with Ratings(path) as ratings:
        if out.suffix.lower() == ".csv":
            write_atomic(out, answers_csv(ratings))
        elif out.suffix.lower() == ".json":
            if pictures is None or "{id}" not in pictures:
                raise BadInputError("Label Studio shows pictures by their address: give --pictures with {id} in it")
            found = tasks(ratings, pictures, Agreement(ratings))
            write_atomic(out, json.dumps(found, indent=1, ensure_ascii=False))
            write_atomic(out.with_suffix(".xml"), LABELLING_CONFIG)
        else:
            raise BadInputError(f"{out}: unknown kind of file {out.suffix!r}; give .csv or .json")
    typer.echo(str(out))


@ratings_app.command("import", epilog="Example: univert ratings import triplets.ratings project-1.json")
def import_command(
    path: Ratings,
    source: Annotated[Path, typer.Argument(help="What Label Studio exported as JSON, of tasks that came from here.")],
    as_json: Json = False,
) -> None:
    """Add the answers that people gave in Label Studio; they replace those of the same people."""
    from univert.curation.label_studio import read_answers
    from univert.data.ratings import Ratings

    with Ratings(path) as ratings:
        answers, left_out = read_answers(source, ratings)
        ratings.put(answers)
    if as_json:
        typer.echo(json.dumps({"answers": len(answers), "left_out": left_out}))
    else:
        typer.echo(f"{len(answers):,} answers added" + (f", {left_out:,} incomplete ones left out" if left_out else ""))


def _tables(found: Summary) -> list[Table]:
    from univert.core.terminal import Name, new_table

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}%"

    def alpha(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    columns = ("vertical", "triplets", "rated", "clean", "alpha")
    verticals = new_table("Triplets", columns, left=("vertical",))
    for row in found.verticals:
        verticals.add_row(Name(row.vertical), f"{row.triplets:,}", f"{row.rated:,}", f"{row.clean:,}", alpha(row.alpha))
    if len(found.verticals) > 1:
        verticals.add_row("all", f"{found.triplets:,}", f"{found.rated:,}", f"{found.clean:,}", alpha(found.alpha))
    verticals.caption = (
        "rated: by as many people as was asked for; clean: right above the posterior; alpha: Krippendorff's, 1 where "
        f"all agree, 0 where they might as well guess. The two questions: same {alpha(found.alpha_same)}, "
        f"different {alpha(found.alpha_different)}."
    )
    raters = new_table(
        "Raters",
        ("rater", "answers", "unsure", "seconds", "gold", "right", "accuracy", "alpha", ""),
        left=("rater", ""),
    )
    for rater in found.raters:
        raters.add_row(
            Name(rater.name),
            f"{rater.answers:,}",
            share(rater.unsure),
            "-" if rater.seconds is None else f"{rater.seconds:.1f}",
            f"{rater.gold:,}",
            share(rater.gold_right),
            share(rater.accuracy),
            alpha(rater.alpha),
            f"set aside: {rater.set_aside}" if rater.set_aside else "",
        )
    raters.caption = (
        "seconds: the median; gold: such questions answered, and how many right; accuracy: Dawid and Skene's estimate "
        "of answers that are right; alpha: against the majority of the others."
    )
    return [verticals, raters]
