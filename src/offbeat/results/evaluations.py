"""When a run is to be evaluated; and of a live run, at how many of these times that was possible."""

import math
from collections.abc import Sequence

from offbeat.results.values import RunValues


def evaluation_times(until: float, step: float) -> list[float]:
    """0, step, 2 step, ... and `until`."""
    count = math.floor(until / step * (1 + 1e-12))
    times = [step * i for i in range(count + 1)]
    return times if times[-1] >= until * (1 - 1e-12) else [*times, until]


def missed(runs: Sequence[RunValues]) -> str | None:
    """The note that says which live runs have fewer evaluations than there were to be; None: none has."""
    said = []
    for run in runs:
        until, step, made = run.settings["until"], run.settings.get("eval_every"), len(run.curve.time)
        if "unit" in run.settings and made and step and 0 < step <= until:
            last, whole = run.curve.time[-1], math.ceil(until / step * (1 - 1e-12))
            planned = 1 + (whole if last >= until else math.floor(last / step))
            if made < planned:
                which = f"{run.algorithm} with lr {run.lr:g}, seed {run.seed}"
                said.append(f"{planned - made:,} of {planned:,} are missing of {which}")
    if not said:
        return None
    advice = "A larger --unit or --eval-every leaves more time"
    return f"Evaluations for which the models could not be copied in time: {'; '.join(said)}. {advice}."
