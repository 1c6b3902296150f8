"""The rating page's interface: who may rate, and what is refused."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.ratings import Ratings
from univert.serving.limits import new_key
from univert.serving.rating import RatingSettings, create_rating_app, read_keys


def test_keys_and_strangers(tmp_path: Path, catalogue: Catalogue) -> None:
    one, other = catalogue.column("id")[:2]
    with Ratings(tmp_path / "ratings", create=True) as ratings:
        ratings.add([(one, other, "gone", "discs")])
        ratings.add([(other, one, "gone", "discs")], gold=("yes", "yes"))
    key, line = new_key("ann")
    (tmp_path / "keys").write_text(f"# raters\n{line}\n")
    settings = RatingSettings(ratings=tmp_path / "ratings", catalogue=catalogue.path, keys=read_keys(tmp_path / "keys"))
    with TestClient(create_rating_app(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/session").json() == {"rater": None, "by_key": True}
        for path in ("/triplets", "/pictures?id=x"):
            assert client.get(path).status_code == 401
        assert client.post("/session", json={"rater": "ann"}).status_code == 401
        entered = client.post("/session", json={"rater": key})
        assert entered.json()["rater"] == "ann"
        assert "HttpOnly" in entered.headers["set-cookie"]
        assert "SameSite=strict" in entered.headers["set-cookie"]
        (triplet,) = client.get("/triplets").json()["triplets"]
        assert set(triplet) == {"id", "anchor", "positive", "negative", "vertical"}, "nothing tells a gold question"
        picture = client.get("/pictures", params={"id": triplet["anchor"]})
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
        assert client.get("/pictures", params={"id": triplet["negative"]}).status_code == 404
        said = {"triplet": triplet["id"], "same": "yes", "different": "no"}
        assert client.post("/answers", json=said).json()["progress"] == {"mine": 1, "rated": 1, "triplets": 1}
        assert "was not given" in client.post("/answers", json={**said, "triplet": 99}).json()["detail"]
        assert client.post("/answers", json={**said, "same": "maybe"}).status_code == 422
        assert client.post("/answers", content=b" " * 20_000).status_code == 413
        assert client.post("/undo").json()["undone"] == triplet["id"]
        assert client.get("/problems/forbidden").json()["status"] == 403
        assert client.get("/session", headers={"host": "evil.example"}).status_code == 421
        assert client.delete("/session").json()["rater"] is None
        assert client.get("/triplets").status_code == 401


@pytest.mark.parametrize("content", ["", "ann:secret", f"ann:{'0' * 64}\nann:{'1' * 64}", None])
def test_a_file_without_good_keys_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    with pytest.raises(BadInputError, match="keys"):
        read_keys(tmp_path / "keys")
