"""Everything the service can be told, in one object: a TOML file, then `UNIVERT_*` variables, then the command."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from univert.core.errors import BadInputError, did_you_mean

PREFIX: Final = "UNIVERT_"
FILE_VARIABLE: Final = "UNIVERT_SETTINGS"
"""The environment variable that names the TOML file."""

RATE_FILE_VARIABLE: Final = "UNIVERT_RATE_FILE"
"""The environment variable that names the file through which workers share how often each client asked."""
METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The one that names the folder where workers share their counts; set before `prometheus_client` is imported."""

_NOT_OURS: Final = (
    FILE_VARIABLE,
    RATE_FILE_VARIABLE,
    "UNIVERT_INCEPTION_V2_WEIGHTS",
    "UNIVERT_CHROMIUM",
    "UNIVERT_SCREENSHOTS",
)
_OF_KUBERNETES: Final = re.compile(r"UNIVERT(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*")
"""What Kubernetes sets in each pod beside a Service whose name begins with `univert`: `UNIVERT_SERVICE_HOST`, and also
`UNIVERT_PORT=tcp://10.0.0.1:8000`. None of it is meant for us."""
_LINK_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "source")
_PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")
_LINK: Final = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:[0-9]+)?/([^{}\s]|\{\w+\})*")
KEY_LINE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}:[0-9a-f]{64}")

Seconds = Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 40)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseSettings):
    """The settings of a service; every field is a key of the TOML file and a variable `UNIVERT_<FIELD>`.

    Attributes:
        model: the model folder, or `OWNER/NAME` on the Hugging Face hub.
        index: the index: a folder, or `s3://bucket/prefix`.
        calibration: what `univert calibrate` wrote; None looks beside the index and in the model's folder.
        detector: the folder of a detector, or another's ONNX file, which finds the items in photos; None: photos are
            answered as a whole.
        host: the address to listen on; loopback unless told otherwise.
        port: the port to listen on; 0 takes any that is free.
        workers: processes that share the port; each holds the index in memory.
        engine: what runs the network: ONNX Runtime in 32 or 8 bits, PyTorch, or the best that is there.
        threads: threads of the network in each worker; 0 shares the cores out among the workers.
        max_batch: photos that go through the network together at most.
        queue_size: photos that may wait for the network; one more is answered 503.
        request_deadline_s: from the last byte of a request to its answer; then 504.
        body_deadline_s: from the first byte of a request's body to its last; then 408.
        idle_s: how long a connection may take for the headers of a request, or lie idle between requests.
        drain_s: on SIGTERM, how long requests are still taken while `/ready` says no.
        shutdown_deadline_s: how long requests that were taken may go on after that.
        requests_at_once: requests in flight in each worker; more are answered 503.
        photo_bytes_max: the largest upload.
        photo_pixels_max: the largest photo, looked up in its header before anything is decoded.
        uploads_bytes_max: bytes of uploads held at once in each worker; more are answered 503.
        refresh_s: how often a newly published version of the index is looked for.
        api_keys: `name:sha256` lines as `univert key NAME` prints them; none means open to all.
        rate_per_s: requests a second for each key (without keys: each address), over all workers; None: no limit.
        rate_burst: requests that may come at once before the rate counts.
        allowed_hosts: names that requests may be addressed to, such as shop.example or `*.shop.example`; loopback
            names always may. None given: any name, but on a loopback address no other than those.
        cors_origins: origins whose pages may call the API; none by default.
        trusted_proxies: addresses or networks whose `X-Forwarded-For` is believed, with commas between; `*`: all.
        root_path: the path under which a proxy shows the service, such as `/visual`; the proxy takes it off.
        page: serve the page at `/`.
        item_link: where items are shown elsewhere, such as `https://shop.example/p/{product}`; in braces any of id,
            vertical, product, brand, style, source.
        feedback: the file to which `POST /feedback` adds what people say; None: there is no such route.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, protected_namespaces=(), validate_default=True
    )

    model: str = Field(min_length=1)
    index: str = Field(min_length=1)
    calibration: Path | None = None
    detector: Path | None = None
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=256)

    engine: Literal["auto", "onnx", "onnx-int8", "torch"] = "auto"
    threads: int = Field(0, ge=0, le=1024)
    max_batch: int = Field(32, ge=1, le=1024)
    queue_size: Count = 128

    request_deadline_s: Seconds = 10.0
    body_deadline_s: Seconds = 20.0
    idle_s: Seconds = 15.0
    drain_s: float = Field(1.0, ge=0, le=600)
    shutdown_deadline_s: Seconds = 30.0

    requests_at_once: Count = 256
    photo_bytes_max: Bytes = 15_000_000
    photo_pixels_max: int = Field(50_000_000, ge=1024, le=1_000_000_000)
    uploads_bytes_max: Bytes = 96_000_000
    refresh_s: Seconds = 1.0

    api_keys: tuple[str, ...] = ()
    rate_per_s: Annotated[float, Field(ge=0.0001, le=1_000_000, allow_inf_nan=False)] | None = None
    rate_burst: Count = 20
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: str = ""
    root_path: str = Field("", pattern=r"^(/\.*[\w~%-][\w.~%-]*)*$")
    page: bool = True
    item_link: str = ""
    feedback: Path | None = None

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        for line in lines:
            if not KEY_LINE.fullmatch(line):
                raise ValueError("each must be a line that `univert key NAME` printed: name:sha256")
        names = [line.partition(":")[0] for line in lines]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name; give each its own")
        return lines

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:[0-9]+)?", origin):
                raise ValueError(
                    f"{origin!r} is no origin; write it as https://shop.example, in small letters and without a path"
                )
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: str) -> str:
        for proxy in proxies.split(",") if proxies not in ("", "*") else ():
            ipaddress.ip_network(proxy.strip())  # a ValueError that says what is wrong
        return proxies

    @field_validator("detector")
    @classmethod
    def _check_detector(cls, folder: Path | None) -> Path | None:
        if folder is not None and not ((folder / "config.json").is_file() or folder.suffix == ".onnx"):
            raise ValueError("must be the folder of a detector, which has a config.json, or another's ONNX file")
        return folder

    @field_validator("item_link")
    @classmethod
    def _check_link(cls, link: str) -> str:
        if unknown := set(_PLACEHOLDER.findall(link)) - {*_LINK_COLUMNS}:
            raise ValueError(f"unknown {{{min(unknown)}}}; {did_you_mean(min(unknown), _LINK_COLUMNS)}")
        if link and not _LINK.fullmatch(link):
            raise ValueError("must be https://, a host and a path; write it as https://shop.example/p/{product}")
        urlsplit(link).port  # noqa: B018 - a ValueError where there is no such port
        return link

    @field_validator("feedback")
    @classmethod
    def _check_feedback(cls, file: Path | None) -> Path | None:
        if file is not None and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
            raise ValueError("must be a file that can be written, in a folder that is there")
        return file

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:]+", host):
                raise ValueError(f"{host!r} is no name of a host; write it as shop.example, without scheme and port")
        return tuple(host.lower() for host in hosts)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.uploads_bytes_max < self.photo_bytes_max:
            raise ValueError("uploads_bytes_max must be at least photo_bytes_max, or no large photo ever passes")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Given values win over the environment, and that over the file."""
        file = os.environ.get(FILE_VARIABLE)
        environment = EnvSettingsSource(settings_cls)
        environment.env_vars = {
            name: value
            for name, value in environment.env_vars.items()
            if not _is_of_kubernetes(name.upper(), value or "")
        }
        sources = (init_settings, environment)
        return (*sources, TomlConfigSettingsSource(settings_cls, Path(file))) if file else sources


def filled_in(link: str, row: Mapping[str, Any]) -> str | None:
    """The setting `item_link` for an item; None without one, or where the item lacks a value that it names."""
    if not link or not all(row.get(name) for name in _PLACEHOLDER.findall(link)):
        return None
    return _PLACEHOLDER.sub(lambda found: quote(row[found[1]], safe=""), link)


def load_settings(**given: Any) -> Settings:
    """The settings from the given values, the environment and the file that `UNIVERT_SETTINGS` names.

    Args:
        given: fields that win over all else; None leaves the field to the other sources.

    Raises:
        BadInputError: the file is missing or not TOML, a key or variable is unknown (the message names the nearest),
            or a value is wrong.
    """
    file = os.environ.get(FILE_VARIABLE)
    if file:
        _check_file(Path(file))
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and name not in _NOT_OURS and not _is_of_kubernetes(name, value):
            _check_name(name.removeprefix(PREFIX).lower(), f"environment variable {name}")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"][:1])
        if first["type"] == "missing":
            raise BadInputError(f"settings: {name} is missing; give it, or set {PREFIX}{name.upper()}") from None
        of_a_path = first["type"] == "string_pattern_mismatch"
        message = "write it as /visual" if of_a_path else first["msg"].removeprefix("Value error, ")
        shown = "" if name in ("api_keys", "") else f", got {first['input']!r}"
        raise BadInputError(f"settings: {name + ': ' if name else ''}{message}{shown}") from None
    except ValueError as error:  # an environment variable that should hold JSON does not
        raise BadInputError(f"settings: {error}; write lists as JSON") from None


def _is_of_kubernetes(name: str, value: str) -> bool:
    if _OF_KUBERNETES.fullmatch(name):
        return True
    return name.startswith(PREFIX) and name.endswith("_PORT") and _ADDRESS.fullmatch(value) is not None


def _check_file(path: Path) -> None:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadInputError(f"{path}: not a readable TOML file: {error}") from None
    for name in values:
        _check_name(name, f"{path}: key {name}")


def _check_name(name: str, where: str) -> None:
    if name not in Settings.model_fields:
        raise BadInputError(f"{where} is no setting of the service; {did_you_mean(name, Settings.model_fields)}")
