"""The shapes of the answers: checked as they leave, and documented in /openapi.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from univert.identity.vote import IdentityAnswer

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
    text: bool = Field(description="Whether POST /search takes text.")


class QueryAnswer(BaseModel):
    """What was asked, as it was understood."""

    width_px: int | None = Field(default=None, description="Of the upright photo.")
    height_px: int | None = Field(default=None, description="Of the upright photo.")
    box_xyxy_px: list[float] | None = Field(
        default=None, description="x0, y0, x1, y1, cut to the photo; null for all of it."
    )
    like: str | None = Field(default=None, description="The item that was given instead of a photo.")
    text: str | None = Field(default=None, description="The words that were given, alone or with a photo.")
    words: str | None = Field(
        default=None,
        description="The text as it was searched for: typos replaced, colours as the catalogue names them.",
    )
    unknown: list[str] | None = Field(default=None, description="Words of the text that no name or tag has.")
    known: int | None = Field(
        default=None, description="How many words of the text are known; 0: the answer goes by their meaning alone."
    )


class HitAnswer(BaseModel):
    """An indexed image near the query."""

    id: str
    distance: float = Field(
        description="Squared Euclidean between unit vectors: 0 the same, 4 the opposite. With text: 2 less the cosine "
        "of the names and that of the picture; with text and a photo, the mean of that and the distance to the photo."
    )
    similarity: float | None = Field(
        ge=0,
        le=1,
        description="Calibrated probability that it shows the same kind of thing (style, else vertical) as the query. "
        "Null without a calibration, and with text.",
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
    detect: float = 0.0
    embed: float = 0.0
    search: float = 0.0
    identify: float = 0.0
    total: float


class FoundItemAnswer(BaseModel):
    """An item that the detector found in a photo."""

    box_xyxy_px: list[float] = Field(description="x0, y0, x1, y1 in whole pixels of the upright photo.")
    vertical: str = Field(description="What the detector takes it for.")
    score: float = Field(description="How sure the detector is that there is an item, 0 to 1.")
    vertical_score: float = Field(description="How sure it is of an item of this vertical, at most the score.")


class NamedItemAnswer(FoundItemAnswer):
    """An item in a photo, what it is, and what is like it: what a search with its box answers."""

    identity: IdentityAnswer | None = Field(description="Null without a calibration.")
    hits: list[HitAnswer]


class DetectAnswer(BaseModel):
    """The items found in a photo, the surest first."""

    width_px: int = Field(description="Of the upright photo.")
    height_px: int = Field(description="Of the upright photo.")
    items: list[FoundItemAnswer]
    model: str | None = Field(description="Fingerprint of the detector.")


class SearchAnswer(BaseModel):
    """What was found, nearest first, wholly from one version of the index."""

    query: QueryAnswer
    identity: IdentityAnswer | None = Field(description="Null with like, with text, and without a calibration.")
    hits: list[HitAnswer]
    items: list[NamedItemAnswer] = Field(
        description="Each item found in the photo, the surest first. Empty with box, like and text, and without a "
        "detector."
    )
    index_version: int
    model: str = Field(description="Fingerprint of the model.")
    detector: str | None = Field(description="Fingerprint of the detector that looked for items; null if none did.")
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
