"""Hostile forms and fields: what surrounds the photo."""

import contextlib
import socket
import time
from typing import Any

import pytest

from tests.serving.hostile.test_files import check_problem
from tests.serving.http.processes import ServerProcess, multipart

NAMES = [
    "../../etc/passwd",
    "C:\\Windows\\win.ini",
    "photo.php%00.jpg",
    "фото 照片 🏞️.jpg",
    "x" * 2000,
    "<script>.jpg",
    "a;b=c.jpg",
]

BAD_BOXES = [
    "nan,0,10,10",
    "1_0,0,20,20",
    "0,0,٢٠,20",
    "0,0,Infinity,10",
    "0,0,inf,10",
    "-inf,-inf,inf,inf",
    "0,0,10",
    "0,0,10,10,10",
    "a,b,c,d",
    "10,10,0,0",
    "5,5,5,5",
    "100,100,200,200",
    "-50,-50,-10,-10",
    "0,0,0.001,0.001",
    "1e308,1e308,1e309,1e309",
    "0;0;10;10",
    "[0,0,10,10]",
    "0," * 5000,
]

BAD_KS = ["0", "-1", "101", "1.5", "NaN", "1e2", "٣", "9" * 400, " 5", "5 ", "0x10", "None", "5,5"]

BAD_FILTERS = [
    "{",
    '{"brand": "a", "brand": "b"}',
    "[]",
    '"brand"',
    "null",
    '{"brand": 5}',
    '{"brand": {"$ne": ""}}',
    '{"brand": []}',
    '{"brand": [["a"]]}',
    '{"vector": "x"}',
    '{"brand\\" OR 1=1 --": "x"}',
    '{"brand": "\\u0000"}',
    '{"brand": "\\ud800"}',
    '{"a":' * 2500 + "1" + "}" * 2500,
    '{"vertical": "nowhere"}',
    '{"brand": ' + str(["a"] * 200).replace("'", '"') + "}",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12])
def test_file_names_mean_nothing(server: ServerProcess, photo: bytes, name: str) -> None:
    body, kind = multipart(photo, {"k": "1"}, file_name=name)
    answer = server.request("POST", "/search", body=body, headers={"Content-Type": kind})
    assert answer.status == 200, answer.body
    assert answer.json()["hits"][0]["id"] == "p4-1"


@pytest.mark.parametrize("name", ["", "; filename*=UTF-8''%E7%85%A7.jpg", "; filename=photo.jpg"])
def test_a_part_named_photo_is_the_photo(server: ServerProcess, photo: bytes, name: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="photo"{name}\r\nContent-Type: image/jpeg\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = server.request("POST", "/search", body=head.encode() + photo + b"\r\n--b--\r\n", headers=kind)
    assert answer.status == 200, answer.body
    assert answer.json()["hits"][0]["id"] == "p4-1"


@pytest.mark.parametrize("box", BAD_BOXES, ids=lambda box: box[:20])
def test_boxes(server: ServerProcess, photo: bytes, box: str) -> None:
    answer = server.search(photo, box=box)
    check_problem(answer, (400,))
    assert answer.json()["type"] == "/problems/bad-box"


@pytest.mark.parametrize("k", BAD_KS, ids=lambda k: ascii(k[:10]))
def test_ks(server: ServerProcess, photo: bytes, k: str) -> None:
    check_problem(server.search(photo, k=k), (422,))


@pytest.mark.parametrize("text", BAD_FILTERS, ids=lambda text: text[:20])
def test_filters(server: ServerProcess, photo: bytes, text: str) -> None:
    answer = server.search(photo, filter=text)
    check_problem(answer, (400,))
    assert answer.json()["type"] == "/problems/bad-filter"


@pytest.mark.parametrize("value", ["' OR 1=1 --", "'; DROP TABLE x; --", "\\", "%", "a'b''c", "\u202e", "🦊" * 100])
def test_values_are_values_and_no_language(server: ServerProcess, photo: bytes, value: str) -> None:
    answer = server.search(photo, brand=value)
    check_problem(answer, (400,))
    assert answer.json()["detail"].startswith("no brand ")


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"filter": '{"product": "prodct 4"}'}, "no product 'prodct 4' in the index; did you mean 'product 4'?"),
        ({"filter": '{"source": "shp"}'}, "no source 'shp' in the index; did you mean 'shop'?"),
        ({"filter": '{"split": "tset"}'}, "no split 'tset' in the index; did you mean 'test'?"),
        ({"filter": '{"brand": ["Maker & Sons", "Maker & Son"]}'}, "no brand 'Maker & Son' in the index; did you"),
        ({"filter": '{"style": ["round", null, "rond"]}'}, "no style 'rond' in the index; did you mean 'round'?"),
        ({"brand": ["Makers & Sons", "Acme"], "vertical": "bags"}, "no brand 'Makers & Sons' in the index; did you"),
        ({"vertical": "shoe"}, "no vertical 'shoe' in the index; did you mean 'shoes'?"),
        ({"style": "sneaker"}, "no style 'sneaker' in the index; there are round"),
    ],
)
def test_each_value_that_no_image_has_is_named(
    server: ServerProcess, photo: bytes, fields: dict[str, Any], detail: str
) -> None:
    answer = server.search(photo, **fields)
    check_problem(answer, (400,))
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("like", ["../../etc/passwd", "' OR 1=1 --", "x" * 5000, "\0", "%00", "🦊"])
def test_like(server: ServerProcess, like: str) -> None:
    check_problem(server.search(like=like), (404,))


FORMS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("nothing", {"fields": {}}, (422,)),
    ("an unknown field", {"photo": b"x", "fields": {"url": "http://127.0.0.1/"}}, (422,)),
    ("a photo as text", {"fields": {"photo": "x"}}, (415,)),
    ("photo and like", {"photo": b"x", "fields": {"like": "p4-1"}}, (422,)),
    ("like and box", {"fields": {"like": "p4-1", "box": "0,0,1,1"}}, (422,)),
    ("k twice", {"photo": b"x", "fields": {"k": ["1", "2"]}}, (422,)),
    ("a thousand fields", {"photo": b"x", "fields": {"brand": ["a"] * 1000}}, (422,)),
    ("a huge field", {"photo": b"x", "fields": {"brand": "a" * 100_000}}, (422,)),
    ("brand twice over", {"photo": b"x", "fields": {"brand": "a", "filter": '{"brand": "b"}'}}, (400,)),
]


@pytest.mark.parametrize(("form", "statuses"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_forms(server: ServerProcess, form: dict[str, Any], statuses: tuple[int, ...]) -> None:
    check_problem(server.request("POST", "/search", **form), statuses)


BODIES = [
    ("no boundary", "multipart/form-data", b"x", (422,)),
    ("another type", "application/json", b"{}", (415,)),
    ("a form without files", "application/x-www-form-urlencoded", b"k=5", (415,)),
    ("noise", "multipart/form-data; boundary=b", bytes(range(256)) * 20, (422,)),
    ("a part without a name", "multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n", (422,)),
    ("a boundary that never comes", "multipart/form-data; boundary=b", b"--c\r\n\r\nx\r\n--c--\r\n", (422,)),
    ("an unending boundary", "multipart/form-data; boundary=" + "b" * 5000, b"x", (422,)),
    (
        "no last boundary",
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\nx\r\n--b\r\n',
        (422,),
    ),
    (
        "a last boundary that breaks off",
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\nx\r\n--b-',
        (422,),
    ),
    (
        "two photos",
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\nx\r\n' * 2 + b"--b--\r\n",
        (422,),
    ),
    (
        "a file of another name",
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="page"; filename="a"\r\n\r\nx\r\n--b--\r\n',
        (422,),
    ),
    (
        "a thousand headers in a part",
        "multipart/form-data; boundary=b",
        b"--b\r\n" + b"X-A: b\r\n" * 1000 + b"\r\nx\r\n--b--\r\n",
        (422,),
    ),
]


@pytest.mark.parametrize(("kind", "body", "statuses"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
def test_bodies(server: ServerProcess, kind: str, body: bytes, statuses: tuple[int, ...]) -> None:
    for path in ("/search", "/embed"):
        check_problem(server.request("POST", path, body=body, headers={"Content-Type": kind}), statuses)


def test_headers_that_never_end(server: ServerProcess) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with contextlib.closing(connection):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"X-Filler: " + b"a" * 5000 + b"\r\n")
                time.sleep(0.002)
            got = connection.recv(100)
            assert got == b"" or got.startswith(b"HTTP/1.1 400")
    assert server.request("GET", "/health").status == 200
