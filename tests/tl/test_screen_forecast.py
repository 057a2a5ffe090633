"""What `tl.screen` says of memory and time before and while it fits targets."""

from __future__ import annotations

import logging

import pytest

from dream_sc._screen.forecast import Pace, keep_to, say_memory


def test_memory_grows_with_rows_and_pairs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dream_sc"):
        found = say_memory(n_rows=1260, n_features=8500, n_targets=400, n_reported=8500)
    assert found == pytest.approx(2.34e9, rel=0.01)
    assert "about 2.34 GB of memory beside the data: 129 MB for sums of 8500 features in 1260 rows" in caplog.text
    assert "2.21 GB for a table of 400 targets" in caplog.text
    assert say_memory(n_rows=1260, n_features=8500, n_targets=400, n_reported=85) < found / 5


def test_the_time_left_is_said_after_the_first_target_and_the_tenth(caplog: pytest.LogCaptureFixture) -> None:
    pace = Pace(1)
    with caplog.at_level(logging.INFO, logger="dream_sc"):
        said = [
            pace.fitted(seconds, n_left) for n_left, seconds in zip(range(99, 79, -1), [9.0, *[3.0] * 19], strict=True)
        ]
    assert said[0] == 9.0 * 99
    assert said[9] == pytest.approx((9 + 9 * 3) / 10 * 90)
    assert [at for at, value in enumerate(said) if value is not None] == [0, 9]
    assert "about 14 min 51 s for the 99 targets left, by 1 fitted so far" in caplog.text


def test_workers_share_the_time_and_the_last_target_says_nothing() -> None:
    pace = Pace(4)
    assert [pace.fitted(2.0, n_left) for n_left in (11, 10, 9)] == [None] * 3
    assert pace.fitted(2.0, 8) == 4.0
    assert Pace(8).fitted(1.0, 3) is None
    assert Pace(1).fitted(2.0, 0) is None


def test_a_screen_that_cannot_keep_its_limit_is_refused() -> None:
    keep_to(None, 10**15)
    keep_to("2GB", 1_830_000_000)
    with pytest.raises(
        ValueError, match=r"needs about 1\.83 GB .* memory_limit='1GB'.*memory_limit='1830MB'.*features="
    ):
        keep_to("1GB", 1_830_000_000)
