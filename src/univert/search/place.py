"""Where an index lies: a folder, or a prefix in an object store (`s3://bucket/prefix`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import lance

from univert.core.errors import BadInputError

TABLE: Final = "images"
LOCK_FILE: Final = "writer.lock"
_DEFAULT_REGION: Final = "us-east-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an index lies.

    Attributes:
        uri: a folder's path, or `s3://bucket/prefix`.
        folder: the folder; None in an object store.
        storage_options: how the storage engine reaches the object store; None for a folder.
    """

    uri: str
    folder: Path | None
    # keys of an object store have no business in a message or a log
    storage_options: dict[str, str] | None = field(repr=False)

    @classmethod
    def of(cls, uri: str | Path | Place, environment: Mapping[str, str] | None = None) -> Place:
        """The place that a path or an address names.

        Args:
            uri: a folder, or `s3://bucket/prefix`.
            environment: where the endpoint and the region of an object store are looked up: the usual
                `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION` and `AWS_DEFAULT_REGION`; by default the
                process's own. Keys are looked up by the storage engine, in all the places where AWS's own tools look.

        Raises:
            BadInputError: an address of another kind, or one without a bucket or a prefix.
        """
        if isinstance(uri, Place):
            return uri
        text = str(uri)
        if "://" not in text:
            return cls(uri=text, folder=Path(uri), storage_options=None)
        parts = urlsplit(text)
        if parts.scheme != "s3":
            raise BadInputError(f"{text}: an index lies in a folder or at s3://bucket/prefix")
        prefix = parts.path.strip("/")
        if not (parts.netloc and prefix):
            raise BadInputError(f"{text}: give a bucket and a prefix, as in s3://bucket/shop.index")
        variables = os.environ if environment is None else environment
        return cls(uri=f"s3://{parts.netloc}/{prefix}", folder=None, storage_options=_storage_options(variables))

    @property
    def table_uri(self) -> str:
        """The address of the table of images: what a LanceDB client opens as table `images` of `uri`."""
        return f"{self.uri}/{TABLE}.lance"

    def holds_index(self) -> bool:
        """Whether there is a table of images."""
        if self.folder is not None:
            return any((self.folder / f"{TABLE}.lance" / "_versions").glob("*.manifest"))
        try:
            self.dataset()
        except ValueError as error:
            if "not found" in str(error):
                return False
            raise
        return True

    def is_free(self) -> bool:
        """Whether an index can be started there: nothing is there, or what a writer left that was killed at once."""
        if self.folder is None or not self.folder.exists():
            return not self.holds_index()
        left_behind = {LOCK_FILE, f"{TABLE}.lance"}
        return not self.holds_index() and all(entry.name in left_behind for entry in self.folder.iterdir())

    def remove(self) -> None:
        """Remove the table of images, and the folder if it is one."""
        if self.folder is not None:
            shutil.rmtree(self.folder)
        else:
            lance.LanceDataset.drop(self.table_uri, storage_options=self.storage_options)

    def dataset(self, version: int | None = None, session: Any = None) -> Any:
        """The table of images, at its latest version or at one.

        Args:
            version: a version's number.
            session: the caches to use; by default the process's own.
        """
        return lance.dataset(self.table_uri, version=version, storage_options=self.storage_options, session=session)


def _storage_options(variables: Mapping[str, str]) -> dict[str, str]:
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION
    options = {"aws_region": region}
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["aws_endpoint"] = endpoint
        options["allow_http"] = str(endpoint.startswith("http://")).lower()
    return options
