"""Can this fit be trusted? What was looked at, each with a light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc._keys import FLAGS
from dream_sc.get._summary import Remark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LIGHTS = {"good": "good", "look": "look at it", "doubtful": "doubtful", "unknown": "not known"}
LONGEST_HEAD = 60
ORDER = ("doubtful", "look", "unknown", "good")
SOUND = {  # a flag: its name for a reader, and what it says where it is not raised
    "many_responders": ("Share of responders", "{value:.0%} of the features; the rest is enough for size factors"),
    "guides_disagree": ("Guides agree", "they clearly disagree in {value:.0%} of the features only"),
    "lone_guide_at_end": ("Ends of the axis", "the guides there have neighbours, or well-known dosages"),
    "few_ntc_guides": ("Control guides", "{value:.0f} NTC guides"),
    "batches_follow_dosage": ("Batches", "{value:.1%} of the variance of the dosage lies between technical groups"),
    "size_factors_follow_dosage": ("Size factors", "they change by {value:.2f} log2 over the range of dosages"),
    "knock_down_by_batch": ("Knock-down by batch", "guides move the cis gene alike in all technical groups"),
    "dosages_by_group": ("Dosages by group", "guides differ by {value:.2f} log2 between technical groups"),
}


def checks(info: Mapping[str, Any], careful: Iterable[Remark]) -> list[Remark]:
    """What to be careful about, and the flags that are not raised; the worst first."""
    found = [*careful]
    table = info.get(FLAGS)
    if table is not None:
        for flag in table[~table["raised"].astype(bool)].itertuples(index=False):
            text = SOUND.get(str(flag.flag), ("", "{value:.3g}"))[1].format(value=flag.value)
            found.append(Remark("good", f"{flag.flag}: {text}"))
    return sorted(found, key=lambda remark: ORDER.index(remark.state))


def in_words(remark: Remark) -> tuple[str, str]:
    """Head of a remark, and the rest of it."""
    head, colon, rest = remark.text.partition(": ")
    if not colon or len(head) > LONGEST_HEAD:
        return "", remark.text
    return (SOUND[head][0] if head in SOUND else head.replace("_", " ").capitalize()), rest
