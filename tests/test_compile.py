"""What is said while functions are compiled."""

from __future__ import annotations

from typing import Any

import pytest

from dream_sc import _compile, settings
from dream_sc._core.compiled import ahead


@pytest.mark.parametrize(
    ("setting", "progress", "said"),
    [
        (None, None, True),
        (False, None, False),
        (None, False, False),
        (True, None, False),
        (False, True, False),
    ],
)
def test_a_message_stands_in_for_a_bar(
    setting: bool | None,
    progress: bool | None,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    restore_settings: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where no bar is shown, unless silence was asked for."""

    def work(steps: Any, n: int, tell: Any, then: Any) -> None:
        for done in range(4):
            tell(done, 3)

    monkeypatch.setattr(ahead, "ready", work)
    settings.progress = setting
    assert _compile.ready("trans", progress) == 3
    assert any("compiling 3 functions" in r.message for r in caplog.records) == said
