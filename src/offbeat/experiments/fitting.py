"""The times of a live run, measured in its trace.

For every agent i (times in the run's own units):

    c_i  from the moment at which a gradient was asked for until it was handed over
    o_i  the agent's own work: from the start of the handler that asked until the gradient began, and, taken
         out of c_i, the reading of registers after it and the time to wake up (see l_i) where computing is
         emulated
    d_i  how long its transmission of one model took (0 where nothing was emulated)
    l_i  how much later than that it was handled: for letters measured; where a run has only registers, twice
         the median time by which the sender was late to start what was waiting: a letter has to wake sender
         and receiver

When all agents stand still at once, for far longer than a step, it is the machine, busy with something else,
and not the algorithm: these pauses enter neither the fit nor the steps that were recorded.
"""

from dataclasses import dataclass

import numpy as np

from offbeat.core.errors import DataError
from offbeat.engines.events import GradientDone, MailReceived, RegisterRead, rows_of
from offbeat.engines.trace import Trace

FEWEST = 5  # gradients of one agent from which something can be fitted
PAUSE = 10.0  # steps (the slowest agent's median c + o) without an event of any agent that make a pause

Pairs = tuple[np.ndarray, np.ndarray]  # a part that a slowdown multiplies, and one that not; float64 [k] each
Intervals = list[tuple[float, float]]  # from and to, one after another


@dataclass(frozen=True, eq=False)
class Fitted:
    """Times of every agent, in the run's units. compute: (c, o); sending: (d, l), of a whole model."""

    compute: list[Pairs]
    sending: list[Pairs]

    def record(self) -> list[dict[str, float]]:
        names = ("compute", "overhead", "sending", "latency")
        return [
            {name: float(v.mean()) for name, v in zip(names, (*c, *d), strict=True)}
            for c, d in zip(self.compute, self.sending, strict=True)
        ]


def fit(trace: Trace, model_bytes: float | None = None) -> Fitted:
    """Measure what every agent's gradients and transmissions took. DataError if gradients are too few.

    A transmission smaller than a whole model counts as model_bytes / bytes of it; None: all are whole.
    """
    sent, out = trace.transmissions, pauses(trace)
    share = np.ones(len(trace.kinds))
    for kind in np.unique(sent["kind"]) if model_bytes else ():
        size = sent["bytes"][sent["kind"] == kind].mean()
        share[kind] = size / model_bytes if size else 1.0
    compute, sending = [], []
    for i in range(trace.agents):
        mine = sent[(sent["agent"] == i) & (sent["bytes"] > 0)]
        mine = mine[~within(mine["start"], mine["end"], out)]
        late = _late(trace, i, np.sort(mine, order="start"))
        compute.append(_gradients(trace, i, out, late))
        sending.append(_sending(trace, i, mine, out, share, late))
    return Fitted(compute, sending)


def gradients_of(trace: Trace, i: int, fewest: int = FEWEST) -> tuple[np.ndarray, np.ndarray]:
    """Agent i's gradients, and when the handler began that asked for each. DataError if they are too few."""
    mine = np.sort(trace.events[trace.events["agent"] == i], order="time", kind="stable")
    g = rows_of(mine, GradientDone)
    if len(g) < fewest:
        raise DataError(f"Agent {i} computed {len(g)} gradients; at least {fewest} make a prediction.")
    before = np.searchsorted(mine["time"], g["start"], side="right") - 1
    return g, np.minimum(g["start"], mine["time"][np.maximum(0, before)])


def _gradients(trace: Trace, i: int, out: Intervals, late: float) -> Pairs:
    """(c, o). What a sleeper needs to wake up (`late`), and reading registers, counts as o."""
    g, asked = gradients_of(trace, i)
    read = rows_of(trace.events[trace.events["agent"] == i], RegisterRead)["time"]
    first = np.append(read, np.inf)[np.searchsorted(read, g["start"], side="right")]
    c = g["end"] - g["start"]
    fixed = np.minimum(late + np.maximum(0.0, g["end"] - first), 0.9 * c)
    kept = ~within(asked, g["end"], out)
    kept[0] = False  # what is used for the first time takes longer
    if not kept.any():
        kept[:] = True
    return (c - fixed)[kept], (g["start"] - asked + fixed)[kept]


def _sending(trace: Trace, i: int, sent: np.ndarray, out: Intervals, share: np.ndarray, late: float) -> Pairs:
    """(d, l): of letters as measured, of registers with a latency that is the same for all."""
    mail = rows_of(trace.events, MailReceived)
    mail = mail[(mail["source"] == i) & ~within(mail["start"], mail["time"], out)]
    if len(mail):
        after = np.maximum(0.0, mail["time"] - mail["end"])
        return (mail["end"] - mail["start"]) / share[mail["kind"]], after
    if not len(sent):
        return np.zeros(1), np.zeros(1)
    return (sent["end"] - sent["start"]) / share[sent["kind"]], np.full(len(sent), 2 * late)


def _late(trace: Trace, i: int, sent: np.ndarray) -> float:
    """The median time by which agent i's next transmission began after the one that it had to wait for: where
    a gradient was done during the one before, and no handler after it could have given it.
    """
    mine = trace.events[trace.events["agent"] == i]
    done = rows_of(mine, GradientDone)["time"]
    given = np.searchsorted(done, [sent["start"], sent["end"]], side="right")
    later = np.searchsorted(mine["time"], [sent["end"][:-1], sent["start"][1:]], side="right")
    waited = (given[1] > given[0])[:-1] & (later[1] == later[0])
    gaps = (sent["start"][1:] - sent["end"][:-1])[waited]
    return max(0.0, float(np.median(gaps))) if len(gaps) else 0.0


def pauses(trace: Trace) -> Intervals:
    """When all agents stood still at once for more than 10 steps, with the steps that this made as long."""
    steps = [(asked, g["end"]) for g, asked in (gradients_of(trace, i) for i in range(trace.agents))]
    usual = [float(np.median(end - asked)) for asked, end in steps]
    times = np.sort(trace.events["time"])
    found: Intervals = []
    for k in np.flatnonzero(np.diff(times) > PAUSE * max(usual)):
        begin, finish = float(times[k]), float(times[k + 1])
        for (asked, end), normal in zip(steps, usual, strict=True):
            hit = (asked < times[k + 1]) & (end > times[k]) & (end - asked > PAUSE * normal)
            begin, finish = min([begin, *asked[hit]]), max([finish, *end[hit]])
        if found and begin <= found[-1][1]:
            begin, finish = min(begin, found[-1][0]), max(finish, found.pop()[1])
        found.append((float(begin), float(finish)))
    return found


def within(start: np.ndarray, end: np.ndarray, out: Intervals) -> np.ndarray:
    """Which of [start, end] overlap one of the intervals."""
    hit = np.zeros(len(start), dtype=bool)
    for begin, finish in out:
        hit |= (start < finish) & (end > begin)
    return hit


def alike(agents: list[Pairs]) -> Pairs:
    """One agent for all: everybody's times, the first part scaled to the mean of the (lower) median agent."""
    means = [float(slow.mean()) for slow, _ in agents]
    middle = sorted(means)[(len(means) - 1) // 2]
    scaled = [slow * (middle / mean if mean else 0.0) for (slow, _), mean in zip(agents, means, strict=True)]
    return np.concatenate(scaled), np.concatenate([fixed for _, fixed in agents])
