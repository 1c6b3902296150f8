from pathlib import Path

from tests.serving.served import Client
from univert.identity.feedback import read_feedback
from univert.models.embedder import Embedder


def test_what_people_say_is_kept_with_the_neighbours_and_without_the_photo(
    client: Client, photo: bytes, model: Embedder, tmp_path: Path
) -> None:
    path = tmp_path / "said.jsonl"
    served = client(feedback=path)
    assert served.get("/verticals").json()["feedback"] is True

    def say(**fields: str) -> int:
        files = {"photo": photo} | {name: (None, value) for name, value in fields.items()}
        status: int = served.post("/feedback", files=files).status_code
        return status

    assert say(item="p4-1", same="true") == 204
    assert say(item="p4-0", same="false", box="0,0,20,20") == 204
    for fields, status in (
        ({"item": "nobody", "same": "true"}, 404),
        ({"item": "p4-1", "same": "perhaps"}, 422),
        ({"item": "p4-1", "same": "true", "box": "9,9,1,1"}, 400),
        ({"item": "p4-1"}, 422),
        ({"item": "p4-1", "same": "true", "more": "x"}, 422),
        ({"item": "", "same": "true"}, 422),
    ):
        assert say(**fields) == status, fields
    same, other = read_feedback(path, model.fingerprint)
    assert (same.same, same.item.id, same.neighbours[0].id) == (True, "p4-1", "p4-1")
    assert (other.same, other.item.id) == (False, "p4-0")
    assert len(same.neighbours) == 24
    assert path.stat().st_mode & 0o077 == 0, "read by nobody else"
    path.unlink()
    path.mkdir()
    answer = served.post("/feedback", files={"photo": photo, "item": (None, "p4-1"), "same": (None, "true")})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-ready")
    assert str(tmp_path) not in answer.text
    without = client()
    assert without.post("/feedback", files={"photo": photo}).status_code == 404
    assert without.get("/verticals").json()["feedback"] is False


def test_pages_of_other_websites_cannot_send_feedback(client: Client, photo: bytes, tmp_path: Path) -> None:
    served = client(feedback=tmp_path / "said.jsonl", cors_origins=("https://shop.example",))
    files = {"photo": photo, "item": (None, "p4-1"), "same": (None, "true")}
    for headers, status in (
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "http://localhost"}, 204),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"}, 204),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://shop.example"}, 204),
    ):
        assert served.post("/feedback", files=files, headers=headers).status_code == status, headers


def test_addresses_carry_the_path_of_the_proxy(client: Client, photo: bytes) -> None:
    served = client(root_path="/visual", item_link="https://shop.example/p/{product}?from={vertical}")
    assert served.get("/openapi.json").json()["servers"] == [{"url": "/visual"}]
    (hit,) = served.post("/search", files={"photo": photo, "k": (None, "1")}).json()["hits"]
    assert (hit["item"], hit["thumbnail"]) == ("/visual/items/p4-1", "/visual/items/p4-1/thumbnail")
    item = served.get("/items/p4-1").json()
    assert item["thumbnail"] == hit["thumbnail"]
    assert item["link"] == "https://shop.example/p/product%204?from=bags"
    assert served.get("/items/p1-0").json()["link"] is None, "it has no product"
    problem = served.get("/items/nobody").json()
    assert (problem["type"], problem["instance"]) == ("/visual/problems/not-found", "/visual/items/nobody")
