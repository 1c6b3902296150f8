"""Starting: what is wrong is said in one line with an exit status, and what need not be loaded is not."""

import socket
from pathlib import Path

import psutil
import pytest

from tests.conftest import Univert
from tests.serving.http.processes import ServerProcess
from univert.core.errors import BadInputError, UnivertError
from univert.serving.server import free_port

AWAY = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.mark.parametrize(
    ("index", "status", "said"),
    [
        ("nowhere", 2, "no such index"),
        pytest.param("s3://bucket/shop.index", 1, "cannot be read", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    univert: Univert, model_folder: Path, index: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    returned, out, err = univert("serve", model_folder, index, "--port", "0", "--workers", "2")
    assert (returned, out, err.count("\n")) == (status, "", 1)
    assert said in err


def test_an_address_that_cannot_be_had_is_named_and_says_whether_to_try_again(univert: Univert, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, err = univert("serve", tmp_path, tmp_path, "--port", port)
        assert status == 1
        assert err.startswith(f"univert: 127.0.0.1:{port} cannot be listened on")
        with pytest.raises(UnivertError, match="another --host or --port"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 0
    for host in ("203.0.113.1", "no such host"):
        with pytest.raises(BadInputError, match=f"^{host}:8000 cannot be listened on"):
            free_port(host, 8000)


def test_neither_process_loads_pytorch(server: ServerProcess) -> None:
    first = psutil.Process(server.process.pid)
    assert server.events("ready")[0]["engine"] == "onnx"
    for process in (first, *first.children(recursive=True)):
        mapped = {Path(region.path).name for region in process.memory_maps()}
        assert not any(name.startswith("libtorch") for name in mapped)
