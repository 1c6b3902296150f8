"""Pages from elsewhere: what their browsers may call, and that they can read refusals as well as answers."""

from __future__ import annotations

from tests.serving.served import Client
from univert.serving.security import new_key

SHOP = {"Origin": "https://shop.example"}
ELSEWHERE = {"Origin": "https://elsewhere.example"}
SECRET, LINE = new_key("shop")


def test_refusals_of_the_gate_can_be_read(client: Client) -> None:
    opened = client(
        cors_origins=("https://shop.example",), api_keys=(LINE,), rate_per_s=0.01, rate_burst=1, requests_at_once=1
    )
    key = {"X-API-Key": SECRET}
    answers = [opened.get("/verticals", headers=SHOP)]
    answers += [opened.get("/verticals", headers={**SHOP, **key}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [401, 200, 429]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert answer.headers.get_list("vary", split_commas=True).count("Origin") == 1
        assert len(answer.headers["x-request-id"]) == 16
        assert answer.headers["x-content-type-options"] == "nosniff"
    for headers in (ELSEWHERE, {}):
        refused = opened.get("/verticals", headers=headers)
        assert refused.status_code == 401
        assert "access-control-allow-origin" not in refused.headers


def test_the_browsers_question_goes_through_the_gate(client: Client) -> None:
    opened = client(cors_origins=("https://shop.example",), api_keys=(LINE,))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    answer = opened.options("/search", headers={**SHOP, **asked})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "X-API-Key" in answer.headers["access-control-allow-headers"]
    assert len(answer.headers["x-request-id"]) == 16
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert opened.options("/search", headers={**ELSEWHERE, **asked}).status_code == 400
