"""Hostile uploads against a real process: told what is wrong, and the server goes on as before."""

import pytest

from tests.serving.hostile.files import accepted, refused
from tests.serving.http.processes import Answer, ServerProcess
from tests.serving.served import SMALL_LIMITS

ACCEPTED = list(accepted())
GROWTH_BYTES = 150_000_000
"""Room for decoders, thread stacks and the allocator; a bomb that went off takes more."""


def check_problem(answer: Answer, statuses: tuple[int, ...]) -> None:
    assert answer.status in statuses, (answer.status, answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status
    assert len(problem["detail"]) > 10
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("content", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_odd_but_usable(server: ServerProcess, content: bytes) -> None:
    answer = server.search(content, k="1")
    assert answer.status == 200, answer.body
    assert len(answer.json()["hits"]) == 1


def test_what_is_refused_leaves_the_server_as_it_was(server: ServerProcess, photo: bytes) -> None:
    before = server.rss_bytes()
    for name, content, statuses in refused(SMALL_LIMITS["photo_bytes_max"]):
        for path in ("/search", "/embed"):
            answer = server.request("POST", path, photo=content)
            assert answer.status in statuses, name
            check_problem(answer, statuses)
    assert server.process.poll() is None
    assert server.search(photo, k="1").json()["hits"][0]["id"] == "p4-1"
    assert server.rss_bytes() - before < GROWTH_BYTES
    assert not any(line.get("problem") == "internal" for line in server.lines)
