"""`POST /feedback`: whether an item is the product in a photo, as people say it; there where a file is set for it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from pydantic import Field

from univert.identity.feedback import Feedback, append_feedback
from univert.identity.vote import ATTRIBUTES
from univert.search.query import Hit
from univert.serving.limits import GuardedRoute, no_parameters
from univert.serving.observability import log
from univert.serving.problems import Problem, busy, documented
from univert.serving.routes import indexed_row
from univert.serving.search import FORM_LIMITS, K_DEFAULT, UPLOAD_PROBLEMS, EmbedForm
from univert.serving.service import record_of, service_of


async def refuse_other_pages(request: Request) -> None:
    """Raise `forbidden` for what another website's page sends: a browser lets it post a form anywhere, unasked."""
    origin, site, host = (request.headers.get(name) for name in ("origin", "sec-fetch-site", "host"))
    known = (f"http://{host}", f"https://{host}", *service_of(request).settings.cors_origins)
    if (origin or site) and site not in ("same-origin", "none") and origin not in known and "*" not in known:
        raise Problem("forbidden", "feedback is only taken from pages of this host, or of an origin in cors_origins")


router: Final = APIRouter(
    tags=["search"], route_class=GuardedRoute, dependencies=[Depends(no_parameters), Depends(refuse_other_pages)]
)


class FeedbackForm(EmbedForm):
    """The form of `POST /feedback`."""

    item: str = Field(min_length=1, description="The id of an item.", examples=["sneakers/0042.jpg"])
    same: bool = Field(description="Whether the item is the product in the photo.", examples=[True])


@router.post(
    "/feedback",
    summary="Say whether an item is the product in a photo",
    operation_id="feedback",
    status_code=204,
    responses={204: {"description": "Noted"}, **documented(*UPLOAD_PROBLEMS, "forbidden", "not-found")},
    form_limits=FORM_LIMITS,
)
async def feedback(request: Request, form: Annotated[FeedbackForm, Form(media_type="multipart/form-data")]) -> None:
    """The photo is asked about once more and forgotten: noted are its neighbours, the item, and what you say."""
    service, record = service_of(request), record_of(request)
    index = service.index(record)
    row = await indexed_row(index, form.item)
    await request.state.upload.take(form.photo)
    answer = await service.loaded.search(
        index, request.state.upload, k=K_DEFAULT, where=None, box_xyxy_px=form.box_xyxy_px, record=record
    )
    said = Feedback(
        same=form.same,
        item=Hit(distance=0.0, **{name: row[name] for name in ("id", *ATTRIBUTES)}),
        named=answer["identity"].product.value if answer["identity"] else None,
        neighbours=tuple(answer["hits"]),
        model_fingerprint=answer["model"],
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    assert service.settings.feedback is not None  # or there would be no route
    try:
        await asyncio.to_thread(append_feedback, service.settings.feedback, said)
    except OSError as error:
        log(logging.ERROR, "feedback cannot be kept", reason=str(error))
        raise busy("not-ready", "feedback cannot be kept just now; the log says why") from None
