"""`POST /detect`: the items in a photo; there where the service has a detector."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from pydantic import BaseModel

from univert.serving.answers import DetectAnswer, FoundItemAnswer
from univert.serving.limits import GuardedRoute, no_parameters
from univert.serving.problems import documented
from univert.serving.search import FORM_LIMITS, UPLOAD_PROBLEMS, Photo
from univert.serving.service import record_of, service_of

router: Final = APIRouter(tags=["search"], route_class=GuardedRoute, dependencies=[Depends(no_parameters)])


class DetectForm(BaseModel, extra="forbid"):
    """The form of `POST /detect`."""

    photo: Photo


@router.post(
    "/detect",
    summary="Where the items in a photo are, and of which vertical",
    operation_id="detect",
    responses={200: {"description": "Looked at"}, **documented(*UPLOAD_PROBLEMS)},
    form_limits=FORM_LIMITS,
)
async def detect(request: Request, form: Annotated[DetectForm, Form(media_type="multipart/form-data")]) -> DetectAnswer:
    """All that the detector is sure enough of, the surest first; a box is good for a search with the same photo."""
    loaded = service_of(request).loaded
    await request.state.upload.take(form.photo)
    header, items = await loaded.detect(request.state.upload, record_of(request))
    assert loaded.detector is not None
    return DetectAnswer(
        width_px=header.width_px,
        height_px=header.height_px,
        items=[FoundItemAnswer(**asdict(item)) for item in items],
        model=loaded.detector.fingerprint,
    )
