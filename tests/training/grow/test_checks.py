from __future__ import annotations

import numpy as np

from tests.metrics.test_compatibility import figures, shop
from univert.training.grow.checks import refusal_of


def test_the_refusal_says_who_lost_and_what_indexing_anew_would_gain() -> None:
    stored, _, _ = shop(0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0].astype(np.float32)
    lost = figures(stored, stored @ rotation)
    kept = lost.kept.verticals["tops"]["recall_at_1"]
    message = refusal_of(lost, limit=0.05)
    assert message is not None
    assert f"tops lost {-100 * kept.difference:.1f} points of R@1" in message
    assert f"indexing anew would give {100 * kept.first:.1f}" in message
    assert "old verticals merged lost" in message
    assert refusal_of(figures(stored, stored), limit=0.05) is None
    assert "no validation image is a query" in (refusal_of(None, limit=0.05) or "")
