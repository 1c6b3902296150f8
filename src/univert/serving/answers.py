"""The shapes of the answers: checked as they leave, and documented in /openapi.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

Name = Annotated[str | None, Field(description="Null if unknown.")]


class Count(BaseModel):
    """A value and how often it occurs."""

    name: str
    images: int


class VerticalsAnswer(BaseModel):
    """What is in the index, to choose filters from: the most frequent values of each column."""

    verticals: list[Count]
    brands: list[Count]
    styles: list[Count]
    sources: list[Count]
    images: int
    index_version: int
    model: str = Field(description="Fingerprint of the model.")
    feedback: bool = Field(description="Whether POST /feedback is there.")


class QueryAnswer(BaseModel):
    """What was asked, as it was understood."""

    width_px: int | None = Field(default=None, description="Of the upright photo.")
    height_px: int | None = Field(default=None, description="Of the upright photo.")
    box_xyxy_px: list[float] | None = Field(
        default=None, description="x0, y0, x1, y1, cut to the photo; null for all of it."
    )
    like: str | None = Field(default=None, description="The item that was given instead of a photo.")


class IdentityLevel(BaseModel):
    """What is known of one level: its vertical, brand, style or product."""

    value: str | None = Field(description="The best guess; trust it only where known is true.")
    confidence: float = Field(ge=0, le=1, description="Calibrated probability that the value is right.")
    known: bool = Field(description="Whether the confidence reaches known_threshold.")
    known_precision: float | None = Field(
        gt=0,
        lt=1,
        description="What known promises: the share of right answers, among those called known, that was asked for "
        "when the service was calibrated. Null where this level could not be calibrated; known is false then.",
    )
    known_threshold: float | None = Field(
        description="Confidence from which on known is true; null where nothing reaches known_precision."
    )


class Evidence(BaseModel):
    """A neighbour that the identity was read from."""

    id: str
    distance: float
    agrees: list[str] = Field(description="The levels at which it agrees with the answer.")


class IdentityOfPhoto(BaseModel):
    """What the photo shows, from its neighbours over the whole index."""

    vertical: IdentityLevel
    brand: IdentityLevel
    style: IdentityLevel
    product: IdentityLevel
    evidence: list[Evidence]


class HitAnswer(BaseModel):
    """An indexed image near the query."""

    id: str
    distance: float = Field(description="Squared Euclidean between unit vectors: 0 the same, 4 the opposite.")
    similarity: float | None = Field(
        ge=0,
        le=1,
        description="Calibrated probability that it shows the same kind of thing (style, else vertical) as the query. "
        "Null without a calibration.",
    )
    vertical: str
    product: Name
    brand: Name
    style: Name
    source: Name
    split: Name
    thumbnail: str = Field(description="Address of its small picture.")
    item: str = Field(description="Address of all that is known of it.")


class TookMs(BaseModel):
    """Milliseconds of each stage; total counts from the request's headers."""

    decode: float = 0.0
    embed: float = 0.0
    search: float = 0.0
    identify: float = 0.0
    total: float


class SearchAnswer(BaseModel):
    """What was found, nearest first, wholly from one version of the index."""

    query: QueryAnswer
    identity: IdentityOfPhoto | None = Field(description="Null with like, and without a calibration.")
    hits: list[HitAnswer]
    index_version: int
    model: str = Field(description="Fingerprint of the model.")
    took_ms: TookMs


class EmbedAnswer(BaseModel):
    """A photo as a unit vector."""

    vector: list[float]
    size: int
    model: str = Field(description="Fingerprint of the model.")


class ItemAnswer(BaseModel, extra="allow"):
    """All columns of an indexed image, and the address of its small picture."""

    id: str
    vertical: str
    product: Name = None
    brand: Name = None
    style: Name = None
    thumbnail: str
    link: str | None = Field(description="Where it is shown elsewhere, as the setting item_link says.")
    index_version: int


class StateAnswer(BaseModel):
    """How the service is."""

    status: str


class ProblemAnswer(BaseModel):
    """What a type of problem means."""

    type: str
    status: int
    title: str
    advice: str
