"""What can be measured in a forecast of weather, and what it must be held against: `simulacra.series.backtest`, with daily rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulacra.evidence import Check, Evidence
from simulacra.series import backtest, rivals
from simulacra.series.windows import Outlook
from simulacra.study import Refused

LEADS = (1, 3, 7, 14, 30, 90)  # days ahead at which scores are taken, those that were forecast
AGAINST = "damped anomaly"  # climatology + AR(1): the forecast that anybody can make
UNIT = "data units"  # rows carry none: the scale is that of the file


def judge(nature: Outlook, drawn: Outlook, *, seed: int, training: Outlook | None = None) -> Evidence:
    """Forecasts against what came, beside persistence, climatology, damped anomaly, seasonal naive and regression.

    The rivals are fitted on `training` only: its last day lies before the first day that is forecast here.
    """
    known, remarks = _rivals(training, nature)
    against = AGAINST if AGAINST in known else next(iter(known))
    evidence = backtest.judge(nature, drawn, rivals=known, against=against, unit=UNIT, seed=seed, leads=LEADS, remarks=remarks)
    if len(set(nature.day.tolist())) < backtest.FEW:
        return evidence
    leads = [lead for lead in LEADS if lead <= nature.horizon]
    return evidence.with_more(checks=skill(nature, drawn, known, leads, seed))


def skill(nature: Outlook, drawn: Outlook, known: Mapping[str, rivals.Forecaster], leads: Sequence[int], seed: int) -> list[Check]:
    """MAE and CRPS at each lead beside all rivals, met where the interval of the difference to the best of them excludes 0."""
    return backtest.skill_checks(nature, drawn, known, leads, UNIT, seed)


def _rivals(training: Outlook | None, nature: Outlook) -> tuple[dict[str, rivals.Forecaster], list[str]]:
    if training is None:
        raise Refused(
            "forecasts are held against climatology and persistence, which must be learned from days before the first origin: "
            "give the earlier days, --training FILE, or judge without --nature so that a recipe's data are used"
        )
    return rivals.rivals(training)
