from __future__ import annotations

import pytest

from univert.serving.limits import RateLimits


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("univert.serving.limits.time", clock)
    return clock


def test_a_burst_then_the_rate(clock: Clock) -> None:
    limits = RateLimits(rate_per_s=2, burst=3)
    assert [limits.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limits.take("b") == 0, "each client has its own"
    clock.now += 0.5
    assert [limits.take("a") for _ in range(2)] == [0, 0.5]
    clock.now += 1000
    assert [limits.take("a") for _ in range(4)] == [0, 0, 0, 0.5], "never more than a burst"
    clock.now = 5.0  # a machine that restarted: its clock began anew
    assert limits.take("a") == 0
    limits.close()
