from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.curation.words import encode, named_pictures
from univert.core.errors import BadInputError
from univert.curation import PictureMatch
from univert.curation.match_practice import learn_match, practice_lists
from univert.curation.picture_match import FEATURES, ResultList, match_features
from univert.models import TextTower

NAMED = named_pictures()
PRODUCTS = sorted(set(NAMED.products))
LEARNED, UNSEEN, TESTED = (NAMED.of(set(PRODUCTS[start::3])) for start in range(3))


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return LEARNED.tower(encode)


@pytest.fixture(scope="module")
def match(tower: TextTower) -> PictureMatch:
    return learn_match(tower, UNSEEN, 60)


def a_list(titles: tuple[str | None, ...] | None = None) -> ResultList:
    """Four red chairs, then a blue lamp."""
    lamp = NAMED.vectors[NAMED.products == "blue-lamp"][:1]
    vectors = np.concatenate([NAMED.vectors[NAMED.products == "red-chair"], lamp])
    return ResultList(query="red chair", vectors=vectors, titles=titles or (None,) * 5)


def test_together_they_tell_right_from_wrong_and_are_calibrated(tower: TextTower, match: PictureMatch) -> None:
    lists, right = practice_lists(TESTED, 60, seed=5)
    features = match_features(tower, lists)
    together = match.probabilities(features)
    assert roc_auc_score(right, together) > 0.85
    for column in range(3):
        alone = np.where(np.isfinite(features[:, column]), features[:, column], np.nanmean(features[:, column]))
        assert roc_auc_score(right, together) > roc_auc_score(right, alone) - 0.02
    assert together.mean() == pytest.approx(right.mean(), abs=0.12)


def test_the_odd_picture_is_out_and_says_why(tower: TextTower, match: PictureMatch) -> None:
    *chairs, lamp = match.rate(tower, [a_list(("red chair", None, "chair red", "chairs", "blue lamp"))])
    assert min(chair.probability for chair in chairs) > 0.5 > lamp.probability
    assert chairs[0].reasons == ("its title 'red chair' fits 'red chair'", "it looks like 'red chair'")
    assert "its title says 'blue lamp', the query 'red chair'" in lamp.reasons
    assert "it does not look like 'red chair'" in lamp.reasons
    untitled = match.rate(tower, [a_list()])
    assert "it is unlike the other pictures of the query" in untitled[4].reasons


@pytest.mark.parametrize("column", range(3))
def test_missing_features_are_judged_by_what_is_there(match: PictureMatch, column: int, tower: TextTower) -> None:
    lists, right = practice_lists(TESTED, 60, seed=6)
    features = match_features(tower, lists)
    features[:, [other for other in range(3) if other != column]] = np.nan
    there = np.isfinite(features[:, column])
    alone = match.probabilities(features)
    assert roc_auc_score(right[there], alone[there]) == pytest.approx(
        roc_auc_score(right[there], features[there, column])
    )
    assert np.ptp(alone[~there]) == 0 if (~there).any() else True


def test_one_picture_no_title_or_no_picture(tower: TextTower, match: PictureMatch) -> None:
    one = ResultList(query="red chair", vectors=NAMED.vectors[:1], titles=[None])
    features = match_features(tower, [one])
    assert np.isfinite(features[0]).tolist() == [True, False, False]
    nothing = ResultList(query="red chair", vectors=NAMED.vectors[:0], titles=[])
    assert match.rate(tower, [nothing]) == match.rate(tower, []) == []


def test_copies_of_a_picture_do_not_vouch_for_it(tower: TextTower) -> None:
    listed = a_list()
    copied = ResultList(
        query=listed.query, vectors=np.concatenate([listed.vectors, listed.vectors[-1:]]), titles=[None] * 6
    )
    before, after = (match_features(tower, [each])[4, 2] for each in (listed, copied))
    assert before == pytest.approx(after)


def test_a_saved_match_is_the_same(match: PictureMatch, tmp_path: Path) -> None:
    match.save(tmp_path / "match.json")
    assert PictureMatch.load(tmp_path / "match.json") == match
    (tmp_path / "match.json").write_text("[1")
    with pytest.raises(BadInputError, match="cannot be read"):
        PictureMatch.load(tmp_path / "match.json")


def test_practice_lists_are_as_described() -> None:
    lists, right = practice_lists(NAMED, 80, seed=1)
    again, _ = practice_lists(NAMED, 80, seed=1)
    assert all(np.array_equal(one.vectors, other.vectors) for one, other in zip(lists, again, strict=True))
    assert sum(len(one.vectors) for one in lists) == len(right)
    assert max(len(one.vectors) for one in lists) <= 30
    titles = [title for one in lists for title in one.titles]
    assert np.mean([title is None for title in titles]) == pytest.approx(0.3, abs=0.07)
    queries = np.repeat([one.query for one in lists], [len(one.vectors) for one in lists])
    lies = [
        title == query
        or (sorted(query.replace("s in", "").split()) == sorted(title.replace("s in", "").split())) != is_right
        for title, query, is_right in zip(titles, queries, right, strict=True)
        if title is not None
    ]
    assert np.mean(lies) == pytest.approx(0.1, abs=0.05)


def test_bad_input_is_refused(tower: TextTower) -> None:
    with pytest.raises(BadInputError, match="5 vectors and 4 titles"):
        a_list((None,) * 4)
    with pytest.raises(BadInputError, match="embed the pictures with the model"):
        match_features(tower, [ResultList(query="x", vectors=np.ones((1, 3), np.float32), titles=[None])])
    with pytest.raises(BadInputError, match="all are of one kind"):
        PictureMatch.fit(np.zeros((3, 3)), np.ones(3, bool))
    with pytest.raises(BadInputError, match="did you mean 'title'"):
        PictureMatch.fit(np.zeros((2, len(FEATURES))), np.array([True, False]), use=["titel"])
    with pytest.raises(BadInputError, match="no text belongs"):
        practice_lists(NAMED.of(set()))
    with pytest.raises(BadInputError, match="every text names all products"):
        practice_lists(NAMED.of({"red-chair"}))
