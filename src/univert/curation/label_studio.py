"""Triplets and answers as Label Studio's JSON, there and back, for teams that rate with it."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from univert.core.errors import BadInputError
from univert.curation.agreement import Agreement
from univert.data.ratings import QUESTIONS, VERDICTS, Answer, Ratings
from univert.data.triplets import ROLES

_OF_IMAGE: Final = {"same": "positive", "different": "negative"}
_MODEL: Final = "univert dawid-skene"

LABELLING_CONFIG: Final = """\
<View style="display: grid; grid-template-columns: repeat(3, 1fr); gap: 1rem">
  <View>
    <Header value="Compare with this" size="4"/>
    <Image name="anchor" value="$anchor"/>
  </View>
  <View>
    <Header value="Is this the same product?" size="4"/>
    <Image name="positive" value="$positive"/>
    <Choices name="same" toName="positive" choice="single" showInline="true" required="true">
      <Choice value="yes" hotkey="1"/><Choice value="no" hotkey="2"/><Choice value="unsure" hotkey="3"/>
    </Choices>
  </View>
  <View>
    <Header value="Is this really another one?" size="4"/>
    <Image name="negative" value="$negative"/>
    <Choices name="different" toName="negative" choice="single" showInline="true" required="true">
      <Choice value="yes" hotkey="4"/><Choice value="no" hotkey="5"/><Choice value="unsure" hotkey="6"/>
    </Choices>
  </View>
</View>
"""
"""The labelling configuration of a Label Studio project for these tasks: three pictures, two questions."""


def tasks(ratings: Ratings, pictures: str, agreement: Agreement | None = None) -> list[dict[str, Any]]:
    """All triplets as tasks, with the answers so far as annotations; gold questions look like all others.

    Args:
        ratings: the file.
        pictures: the address of a picture, with `{id}` where its percent-encoded id goes.
        agreement: gives predictions, too: what the answers so far come to.

    Returns:
        what, as JSON, Label Studio imports.
    """
    answers: dict[int, list[Answer]] = defaultdict(list)
    for answer in ratings.answers():
        answers[answer.triplet].append(answer)
    found = []
    for triplet in ratings.triplets():
        ids = {role: getattr(triplet, role) for role in ROLES}
        task: dict[str, Any] = {
            "data": {
                **{role: pictures.replace("{id}", quote(name, safe="")) for role, name in ids.items()},
                **{f"{role}_id": name for role, name in ids.items()},
                "vertical": triplet.vertical,
            },
            "annotations": [_annotation(answer) for answer in answers[triplet.id]],
        }
        if agreement is not None and triplet.id in agreement.probability:
            verdicts = {name: "yes" if agreement.yes[triplet.id, name] >= 0.5 else "no" for name in QUESTIONS}
            score = agreement.probability[triplet.id]
            task["predictions"] = [{"model_version": _MODEL, "score": score, "result": _result(verdicts)}]
        found.append(task)
    return found


def read_answers(path: Path | str, ratings: Ratings) -> tuple[list[Answer], int]:
    """The answers in what Label Studio exported as JSON, of tasks that `tasks` made.

    Args:
        path: the file.
        ratings: with the triplets.

    Returns:
        the answers, and how many annotations were left out: skipped, without both answers, or of no triplet here. A
        rater is who is named in an answer that came from here, else whoever completed the annotation: their e-mail
        address or number.

    Raises:
        BadInputError: the file is something else, or has no triplet of these ratings.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not a readable JSON file: {error}") from None
    if not (isinstance(found, list) and all(isinstance(task, dict) and "data" in task for task in found)):
        raise BadInputError(f"{path}: not a list of tasks; export from Label Studio as JSON (not JSON-MIN)")
    known = {tuple(getattr(triplet, role) for role in ROLES): triplet.id for triplet in ratings.triplets()}
    answers, left_out, tasks_here = [], 0, 0
    for task in found:
        triplet = known.get(tuple(task["data"].get(f"{role}_id") for role in ROLES))
        tasks_here += triplet is not None
        for annotation in task.get("annotations") or ():
            answer = None if triplet is None else _answer(annotation, triplet)
            left_out += answer is None
            answers += [] if answer is None else [answer]
    if not tasks_here:
        raise BadInputError(f"{path}: no task has a triplet of {ratings.path}; was it exported from another file?")
    return answers, left_out


def _result(verdicts: Mapping[str, str], **meta: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for question, role in _OF_IMAGE.items():
        part = {"from_name": question, "to_name": role, "type": "choices", "value": {"choices": [verdicts[question]]}}
        result.append({"id": f"{question}-{role}", **part, **({"meta": meta} if meta else {})})
    return result


def _annotation(answer: Answer) -> dict[str, Any]:
    # who rated here is no user there, and an unknown `completed_by` is refused: the name goes with the result
    return {
        "result": _result({question: getattr(answer, question) for question in QUESTIONS}, rater=answer.rater),
        "lead_time": answer.seconds,
        "created_at": datetime.fromtimestamp(answer.time_s, UTC).isoformat(),
    }


def _answer(annotation: Mapping[str, Any], triplet: int) -> Answer | None:
    if annotation.get("was_cancelled"):
        return None
    said: dict[str, str] = {}
    rater: Any = annotation.get("completed_by")
    rater = rater.get("email") or rater.get("id") if isinstance(rater, dict) else rater
    for part in annotation.get("result") or ():
        choices = part.get("value", {}).get("choices") or [None]
        if part.get("from_name") in QUESTIONS and choices[0] in VERDICTS:
            said[part["from_name"]] = choices[0]
            rater = (part.get("meta") or {}).get("rater") or rater
    if len(said) < len(QUESTIONS) or rater is None:
        return None
    when = annotation.get("created_at")
    try:
        time_s = datetime.fromisoformat(str(when)).timestamp()
    except ValueError:
        time_s = time.time()
    seconds = annotation.get("lead_time")
    return Answer(
        triplet=triplet, rater=str(rater), same=said["same"], different=said["different"],
        seconds=None if seconds is None else float(seconds), time_s=time_s,
    )  # fmt: skip
