"""Messages and settings."""

from __future__ import annotations

import logging

import pytest

from dream_sc import settings
from dream_sc._logging import wrote

pytestmark = pytest.mark.usefixtures("restore_settings")


def test_silent_by_default(capsys):
    wrote("tl.fit_trans", [".varm['trans']"])
    assert capsys.readouterr() == ("", "")


def test_wrote_names_slots(capsys):
    settings.verbosity = "info"
    wrote("tl.fit_trans", [".varm['trans']", ".uns['trans']"], 75.2)
    first, *added = capsys.readouterr().err.splitlines()
    assert first == "tl.fit_trans: done (1 min 15 s)"
    assert added == ["    added .varm['trans']", "    added .uns['trans']"]


@pytest.mark.parametrize(("seconds", "text"), [(3.14, "3.1 s"), (60, "1 min 0 s"), (3720, "1 h 2 min")])
def test_duration(seconds, text, caplog):
    with caplog.at_level(logging.INFO, logger="dream_sc"):
        wrote("step", [], seconds)
    assert caplog.messages == [f"step: done ({text})"]


def test_verbosity_round_trip(capsys):
    for level in ("error", "warning", "info", "debug"):
        settings.verbosity = level
        assert settings.verbosity == level
    assert len([h for h in logging.getLogger("dream_sc").handlers if h is settings._handler]) == 1
    with pytest.raises(ValueError, match="use one of"):
        settings.verbosity = "loud"


@pytest.mark.parametrize(("number", "name"), [(0, "error"), (1, "warning"), (2, "info"), (3, "info"), (4, "debug")])
def test_verbosity_by_the_numbers_of_scanpy(number, name):
    settings.verbosity = number
    assert settings.verbosity == name
    for wrong in (5, -1, True, 1.0):
        with pytest.raises(ValueError, match="scanpy's 0 to 4"):
            settings.verbosity = wrong


def test_settings_progress_is_checked():
    with pytest.raises(TypeError, match="True, False or None"):
        settings.progress = "yes"


def test_a_misspelt_setting_is_refused() -> None:
    for name, text in (("verbose", "did you mean 'verbosity'"), ("progres", "did you mean 'progress'"), ("x", "only")):
        with pytest.raises(AttributeError, match=rf"dream_sc\.settings has no '{name}', only .*{text}|{text}"):
            setattr(settings, name, "info")
        assert not hasattr(settings, name)


def test_messages_say_what_they_are_about(caplog: pytest.LogCaptureFixture) -> None:
    from dream_sc._logging import about, logger

    with caplog.at_level(logging.WARNING, "dream_sc"):
        with about("target MYB at 50 %"):
            logger.warning("only %d cells", 3)
        logger.warning("only %d cells", 4)
    assert [r.getMessage() for r in caplog.records] == ["target MYB at 50 %: only 3 cells", "only 4 cells"]
