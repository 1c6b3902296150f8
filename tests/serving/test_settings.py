from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.serving.limits import new_key
from univert.serving.settings import load_settings

NEEDED = {"model": "runs/shop/unified", "index": "shop.index"}


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("UNIVERT_"):
            monkeypatch.delenv(name)


def write(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    path.write_text(text)
    monkeypatch.setenv("UNIVERT_SETTINGS", str(path))
    return path


def test_what_is_given_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s.toml", 'model = "a"\nindex = "b"\nport = 1\nqueue_size = 7\n', monkeypatch)
    monkeypatch.setenv("UNIVERT_PORT", "2")
    monkeypatch.setenv("UNIVERT_INDEX", "s3://bucket/shop")
    monkeypatch.setenv("UNIVERT_CORS_ORIGINS", '["https://shop.example"]')
    settings = load_settings(index=None, port=3)
    assert (settings.model, settings.index, settings.port, settings.queue_size) == ("a", "s3://bucket/shop", 3, 7)
    assert settings.cors_origins == ("https://shop.example",)
    assert settings.host == "127.0.0.1"
    assert settings.api_keys == ()


def test_unknown_names_are_errors_that_name_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIVERT_QUEUE_SISE", "5")
    with pytest.raises(BadInputError, match=r"UNIVERT_QUEUE_SISE .* did you mean 'queue_size'"):
        load_settings(**NEEDED)
    monkeypatch.delenv("UNIVERT_QUEUE_SISE")
    path = write(tmp_path / "s.toml", "worker = 2\n", monkeypatch)
    with pytest.raises(BadInputError, match=rf"{path.name}: key worker .* did you mean 'workers'"):
        load_settings(**NEEDED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 70_000}, "port: .*70000"),
        ({"workers": 0}, "workers: .*0"),
        ({"request_deadline_s": 0}, "request_deadline_s"),
        ({"request_deadline_s": float("nan")}, "request_deadline_s"),
        ({"engine": "tensorflow"}, "engine: .*onnx-int8"),
        ({"uploads_bytes_max": 2_000}, "at least photo_bytes_max"),
        ({"api_keys": ("shop:plain-text-key",)}, "univert key NAME"),
        ({"api_keys": (new_key("a")[1], new_key("a")[1])}, "same name"),
        ({"allowed_hosts": ("https://shop.example",)}, "without scheme and port"),
        ({"allowed_hosts": ("shop.*",)}, "no name of a host"),
        ({"cors_origins": ("shop.example",)}, "no origin"),
        ({"cors_origins": ("https://shop.example/path",)}, "no origin"),
        ({"cors_origins": ("https://*.shop.example",)}, "no origin"),
        ({"cors_origins": ("https://Shop.example",)}, "small letters"),
        ({"root_path": "visual/"}, "root_path: write it as /visual, got 'visual/'"),
        ({"root_path": "/a/../b"}, "root_path"),
        ({"root_path": "/."}, "root_path"),
        ({"trusted_proxies": "nonsense"}, "trusted_proxies: 'nonsense' does not appear to be"),
        ({"trusted_proxies": "10.0.0.1, 10.0.0.1/8"}, "trusted_proxies: 10.0.0.1/8 has host bits set"),
        ({"trusted_proxies": "*,10.0.0.1"}, "trusted_proxies"),
        ({"refresh_s": 1e-9}, "refresh_s"),
        ({"idle_s": 1e9}, "idle_s"),
        ({"threads": 100_000}, "threads"),
        ({"queue_size": 10**9}, "queue_size"),
        ({"requests_at_once": 10**9}, "requests_at_once"),
        ({"photo_pixels_max": 1}, "photo_pixels_max"),
        ({"photo_bytes_max": 10**15, "uploads_bytes_max": 10**16}, "photo_bytes_max"),
        ({"rate_per_s": 1e-12}, "rate_per_s"),
        ({"rate_burst": 10**12}, "rate_burst"),
        ({"host": ""}, "host"),
        ({"item_link": "https://shop.example/{produkt}"}, "did you mean 'product'"),
        ({"item_link": "javascript:alert(1)"}, "https://"),
        ({"item_link": "https://shop.example:port/{product}"}, "item_link: "),
        ({"item_link": "https://shop.example:99999/{product}"}, "item_link: "),
        ({"item_link": "https://me:secret@shop.example/{product}"}, "item_link: must be"),
        ({"item_link": "https://shop.example/{{product}}"}, "item_link: must be"),
        ({"item_link": "https://shop.example/{product"}, "item_link: must be"),
        ({"feedback": "/nowhere/said.jsonl"}, "can be written"),
    ],
)
def test_bad_values(given: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as error:
        load_settings(**NEEDED, **given)
    assert "plain-text" not in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        {"root_path": "/visual/v1.2/~me/..a"},
        {"trusted_proxies": "*"},
        {"trusted_proxies": "10.0.0.1, 10.1.0.0/16,::1"},
        {"cors_origins": ("*", "http://localhost:3000", "https://[::1]:8443")},
    ],
)
def test_good_values(given: dict[str, object]) -> None:
    load_settings(**NEEDED, **given)


def test_what_is_missing_or_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match=r"model is missing.*UNIVERT_MODEL"):
        load_settings(index="b")
    monkeypatch.setenv("UNIVERT_CORS_ORIGINS", "https://a")
    with pytest.raises(BadInputError, match="JSON"):
        load_settings(**NEEDED)
    monkeypatch.delenv("UNIVERT_CORS_ORIGINS")
    write(tmp_path / "s.toml", "model = ", monkeypatch)
    with pytest.raises(BadInputError, match="not a readable TOML"):
        load_settings(**NEEDED)
    monkeypatch.setenv("UNIVERT_SETTINGS", str(tmp_path / "nowhere.toml"))
    with pytest.raises(BadInputError, match="No such file"):
        load_settings(**NEEDED)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s.toml", "port = 81\n", monkeypatch)
    for name, value in {
        "UNIVERT_SERVICE_HOST": "10.0.0.1",
        "UNIVERT_SERVICE_PORT_HTTP": "8000",
        "UNIVERT_PORT": "tcp://10.0.0.1:8000",
        "UNIVERT_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "UNIVERT_PAGE_PORT": "udp://10.0.0.2:53",
        "UNIVERT_PAGE_PORT_53_UDP_PROTO": "udp",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings(**NEEDED).port == 81
    assert load_settings(**NEEDED, port=82).port == 82
    monkeypatch.setenv("UNIVERT_PORT", "83")
    assert load_settings(**NEEDED).port == 83
    monkeypatch.setenv("UNIVERT_PORTS", "tcp://10.0.0.1:8000")
    with pytest.raises(BadInputError, match="did you mean 'port'"):
        load_settings(**NEEDED)
