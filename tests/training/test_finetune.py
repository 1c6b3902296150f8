import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.shop import modified
from univert.core.errors import BadInputError, TrainingError
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.triplets import ROLES, TripletProblemsError, read_clean_triplets
from univert.main_job import train
from univert.metrics.compare import Comparison, compare_vectors
from univert.models.embedder import Embedder
from univert.training import triplet_training
from univert.training.combine.config import CombineConfig
from univert.training.finetune import FinetuneConfig, base_of, finetune
from univert.training.recipe import DataConfig, EvaluationConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.triplet_config import GroupTripletsConfig, TripletLoopConfig
from univert.training.triplet_training import CleanTripletObjective, TripletSampler

LOOP = TripletLoopConfig(epochs=1, min_steps=8, batch_size=12, evaluations=2)
CONFIG = FinetuneConfig(data=DataConfig(views=1), loop=LOOP)


@pytest.fixture(scope="module")
def model(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model; its batch normalisation has seen nothing."""
    torch.manual_seed(0)
    return Embedder(recipe.model).eval().save_pretrained(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Verified triplets of both verticals."""
    path = tmp_path_factory.mktemp("triplets") / "verified.csv"
    rows = [
        (f"{vertical}-{product}-{image}", f"{vertical}-{product}-{(image + 1) % 3}", f"{vertical}-{other}-{image}")
        for vertical in ("discs", "squares")
        for product, other in ((0, 4), (4, 5), (5, 8), (8, 0), (1, 0))
        for image in range(3)
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([ROLES, *rows])
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Embedder.from_pretrained(folder).state_dict()


def same_weights(first: Path, second: Path) -> bool:
    ours, theirs = weights(first), weights(second)
    return all(ours[name].equal(theirs[name]) for name in ours)


def lost_in_discs(*args: object, **settings: object) -> Comparison:
    """A comparison in which the second model has lost in one vertical."""
    found = compare_vectors(*args, **settings)  # type: ignore[arg-type]
    bad = dataclasses.replace(found.verticals["discs"]["map_at_r"], verdict="worse")
    verticals = {**found.verticals, "discs": {**found.verticals["discs"], "map_at_r": bad}}
    return dataclasses.replace(found, verticals=verticals)


@pytest.mark.parametrize(("others", "share"), [(0, 0.5), (40, 0.5), (7, 0.0), (40, 0.75)])
def test_batches_are_whole_triplets_then_others(
    others: int, share: float, catalogue: Catalogue, verified: Path
) -> None:
    clean, images = read_clean_triplets(verified, catalogue), np.arange(others)
    sampler = TripletSampler(clean, images, batch_size=16, share=share, seed=3)
    again = TripletSampler(clean, images, batch_size=16, share=share, seed=3)
    known = set(zip(clean.anchors.tolist(), clean.positives.tolist(), clean.negatives.tolist(), strict=True))
    size, seen = sampler.triplets_per_batch, []
    for step in range(sampler.steps_per_epoch):
        batch = sampler.batch(step)
        assert len(batch) == sampler.batch_size <= 16
        seen += list(zip(*batch[: 3 * size].reshape(3, size).tolist(), strict=True))
        assert set(batch[3 * size :]) <= set(images)
    assert len(seen) == len(set(seen))
    assert set(seen) <= known
    np.testing.assert_array_equal(again.batch(5), sampler.batch(5))
    with pytest.raises(BadInputError, match="room for a triplet"):
        TripletSampler(clean, np.arange(40), batch_size=4, share=0.5)


def test_the_loss_is_as_written() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(8, 4, generator=generator), dim=1)
    old = torch.nn.functional.normalize(torch.randn(8, 4, generator=generator), dim=1)
    positions, views = np.arange(8), np.zeros(8, np.int64)
    asked = []

    def embed(positions: np.ndarray, views: np.ndarray) -> torch.Tensor:
        asked.append(positions.tolist())
        return old[positions]

    losses = []
    for a, p, n in ((0, 2, 4), (1, 3, 5)):
        near, far = (vectors[a] - vectors[p]).square().sum(), (vectors[a] - vectors[n]).square().sum()
        losses.append(max(0.0, float(0.5 + near - far)))
    triplet = sum(losses) / max(1, sum(loss > 0 for loss in losses))
    kept = float((vectors[6:] - old[6:]).square().sum() / 2)
    objective = CleanTripletObjective(2, margin=0.5, keep=3.0, old=embed)
    assert float(objective(vectors, positions, views)) == pytest.approx(triplet + 3 * kept, rel=1e-5)
    assert asked == [[6, 7]]
    plain = CleanTripletObjective(2, margin=0.5, keep=0.0, old=embed)
    assert float(plain(vectors, positions, views)) == pytest.approx(triplet, rel=1e-5)
    assert len(asked) == 1
    assert not list(objective.parameters())


def test_fine_tuning_end_to_end(model: Path, verified: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    result = finetune(model, catalogue, verified, tmp_path, CONFIG)
    stored = json.loads((tmp_path / "finetune.json").read_text())
    assert stored == json.loads(json.dumps(result.results))
    assert stored["kept"] == result.kept == (not stored["lost"])
    assert stored["triplets"]["used"] == 30
    assert stored["triplets"]["unlabelled"] == 6
    assert set(stored["triplets_in_order"]) == {"before", "after"}
    assert stored["test"]["merged"]["recall_at_1"]["queries"] > 0
    assert same_weights(result.model_path, tmp_path / "tuned" if result.kept else model)
    assert not same_weights(tmp_path / "tuned", model)

    old, val = Embedder.from_pretrained(model), catalogue.select(split="val")
    new = Embedder.from_pretrained(tmp_path / "tuned")
    expected = compare_vectors(
        old.embed_catalogue(val), new.embed_catalogue(val), list(val.column("product")), list(val.column("vertical"))
    )
    for metric, difference in expected.merged.items():
        assert result.comparison.merged[metric].first == pytest.approx(difference.first)
        assert result.comparison.merged[metric].second == pytest.approx(difference.second)

    before = modified(tmp_path)
    again = finetune(model, catalogue, verified, tmp_path, CONFIG)
    assert modified(tmp_path) == before, "finished work was done again"
    assert again.results == result.results
    stricter = finetune(model, catalogue, verified, tmp_path, replace(CONFIG, tolerance=0.5, limit=1.0))
    tuned = str(tmp_path / "tuned" / "model.safetensors")
    assert modified(tmp_path)[tuned] == before[tuned], "another tolerance is no other training"
    assert stricter.kept


def test_the_features_are_those_of_the_models_own_base_network_and_of_its_run(
    verified: Path, catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    context = RunContext(Run(tmp_path / "run"), catalogue, replace(recipe, data=CONFIG.data))
    with torch.no_grad():
        for parameter in context.features.base.base_network.parameters():
            parameter.mul_(1.1)
    assert context.features.source.views == 1  # computes the features
    unified = context.new_embedder().save_pretrained(tmp_path / "run" / "unified")
    assert base_of(Embedder.from_pretrained(unified)).fingerprint == context.features.base.fingerprint
    result = finetune(unified, catalogue, verified, tmp_path / "out", CONFIG)
    (theirs,) = (tmp_path / "run" / "cache").glob("features-*/view-1.npy")
    (ours,) = (tmp_path / "out" / "cache").glob("features-*/view-1.npy")
    assert ours.samefile(theirs)
    val = catalogue.select(split="val")
    after = Embedder.from_pretrained(tmp_path / "out" / "tuned").embed_catalogue(val)
    expected = compare_vectors(after, after, list(val.column("product")), list(val.column("vertical")))
    assert result.comparison.merged["map_at_r"].second == pytest.approx(expected.merged["map_at_r"].second)


def test_the_chosen_verticals_alone(model: Path, verified: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    config = replace(CONFIG, data=replace(CONFIG.data, verticals=("discs",)))
    with pytest.raises(TripletProblemsError, match="image of a vertical not chosen"):
        finetune(model, catalogue, verified, tmp_path, config)
    result = finetune(model, catalogue, verified, tmp_path, config, on_bad="skip")
    assert result.report.verticals == {"discs": 15}
    assert list(result.comparison.verticals) == ["discs"]
    assert len((tmp_path / "rejected.csv").read_text().splitlines()) == 1 + 15 * 3


def test_what_cannot_be_used_is_refused(model: Path, verified: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing can tell whether"):
        finetune(model, catalogue.select(split=("train", "test")), verified, tmp_path, CONFIG)
    with pytest.raises(BadInputError, match="keep has no effect"):
        FinetuneConfig(keep=1.0, others=0.0)


def test_each_groups_model_learns_from_its_triplets_before_it_is_a_target(
    catalogue: Catalogue, recipe: Recipe, verified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disc model is kept as it was, since it became worse; the square model is the tuned one."""
    worse = triplet_training.losses_of

    def losses_of(comparison: Comparison, config: GroupTripletsConfig) -> list[str]:
        worse(comparison, config)
        return ["discs, recall_at_1"] if "discs" in comparison.verticals else []

    monkeypatch.setattr(triplet_training, "losses_of", losses_of)
    recipe = replace(
        recipe,
        data=DataConfig(views=1),
        combine=CombineConfig(mode="off"),
        unify=replace(recipe.unify, way="specialists"),
        evaluation=EvaluationConfig(baselines=(), resamples=20, bounds_images=0),
        triplets=GroupTripletsConfig(file=str(verified), loop=LOOP),
    )
    models = train(catalogue, tmp_path, recipe, report=False).finished.models
    own = dict(zip(("discs", "squares"), models.own.models, strict=True))
    assert (own["discs"].name, own["squares"].name) == ("specialists/discs", "tuned/squares")
    alone = json.loads((tmp_path / "stages" / "tuned--squares.json").read_text())["result"]["image_presentations"]
    assert (
        own["squares"].record["image_presentations"]
        == alone + models.specialists.models[1].record["image_presentations"]
    )
    results = json.loads((tmp_path / "evaluation.json").read_text())
    assert [(group["verticals"], group["triplets"], group["kept"]) for group in results["clean_triplets"]] == [
        (["discs"], 15, False),
        (["squares"], 15, True),
    ]
    assert results["notes"] == [
        "the specialist of discs learned from 15 clean triplets, too, but became worse in discs, recall_at_1, and is "
        "as it was",
        "the specialist of squares learned from 15 clean triplets, too",
    ]
    before = modified(tmp_path)
    train(catalogue, tmp_path, report=False)
    assert modified(tmp_path) == before, "a begun run keeps its triplets, and what is finished is not done again"


def test_triplets_that_cannot_be_used_are_refused_before_any_training(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=r"triplets\.margin has no effect without triplets\.file"):
        GroupTripletsConfig(margin=0.5)
    with pytest.raises(BadInputError, match="no such file"):
        train(catalogue, tmp_path, replace(recipe, triplets=GroupTripletsConfig(file="nowhere.csv")), report=False)
    assert not (tmp_path / "last_step").exists()


def test_a_training_that_fails_names_the_setting_of_its_own_command(
    model: Path, catalogue: Catalogue, recipe: Recipe, verified: Path, tmp_path: Path
) -> None:
    wild = replace(LOOP, learning_rate=1e38)
    with pytest.raises(TrainingError, match=r"lower loop\.learning_rate and"):
        finetune(model, catalogue, verified, tmp_path / "alone", replace(CONFIG, loop=wild))
    recipe = replace(
        recipe, combine=CombineConfig(mode="off"), triplets=GroupTripletsConfig(file=str(verified), loop=wild)
    )
    with pytest.raises(TrainingError, match=r"^tuned/discs: .* lower triplets\.loop\.learning_rate and"):
        train(catalogue, tmp_path / "run", recipe, report=False)
