from pathlib import Path

import pytest

from univert.serving.shared import RateLimits, make_rate_file


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("univert.serving.shared.time", clock)
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


def test_processes_share_a_file_and_its_salt(tmp_path: Path) -> None:
    salts = set()
    for name in ("a", "b"):
        make_rate_file(tmp_path / name)
        first, second = (RateLimits(0.001, 2, tmp_path / name) for _ in range(2))
        assert [first.take("x") > 0, second.take("x") > 0, first.take("x") > 0] == [False, False, True]
        salts.add(first._salt)
        assert first._salt == second._salt != bytes(32)
        first.close()
        second.close()
    assert len(salts) == 2
