"""All instants at which something ends in a segment of a timetable, in the order of the simulator."""

from dataclasses import dataclass

import numpy as np

from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints


class NoTimetable(Exception):
    """Only the simulator can tell what happens when. run: in which of several."""

    def __init__(self, run: int = 0) -> None:
        super().__init__(run)
        self.run = run


@dataclass(frozen=True, eq=False)
class Instants:
    """Gradients and transmissions of a segment, and their places among all instants.

    Gradients stand agent by agent, `begin[i]` is agent i's first, version `before[i]` + 1. Transmissions
    stand queue by queue, `sent[q]` is queue q's first; its old ones, those of the segments before that can
    still be heard, come before its new ones.
    """

    begin: Ints
    before: Ints
    agent: Ints
    time: Floats
    began: Floats
    applied: Ints
    sent: Ints
    queue: Ints
    sender: Ints
    start: Floats
    end: Floats
    version: Ints
    name: Ints
    freed: Ints
    first: Ints
    """Where the receivers of each transmission begin, in the two that follow."""
    there: Floats
    """When it is there, receiver by receiver; empty if that is when it ends."""
    passes: Bools
    """Whether it comes there; empty if everything does."""

    def made(self) -> Ints:
        """The gradient with which each transmission's version was made; -1 if that was before."""
        number = self.version - self.before[self.sender]
        return np.where(number > 0, self.begin[self.sender] + number - 1, -1)

    def left(self) -> Ints:
        """The transmissions in the order in which they leave."""
        order = np.argsort(self.start, kind="stable")
        if (np.diff(self.start[order]) == 0).any():  # as what they leave upon: a gradient, or an arrival
            made, by_sender = self.made(), np.lexsort((self.start, self.sender))
            freed = np.empty_like(self.freed)
            freed[by_sender] = np.roll(self.freed[by_sender], 1)
            upon = np.append(self.time, -1.0)[made] == self.start
            event = np.where(upon, np.append(self.applied, -1)[made], freed)
            order = np.lexsort((event, self.start))
        return order


def apart(write: Ints, when: Floats, start: Floats) -> Ints:
    """An order of what is handed over: by write, then as it came; of what came at one instant first what was
    sent first. Raises NoTimetable if that does not tell.
    """
    order = np.lexsort((start, when, write))
    alike = [key[order[1:]] == key[order[:-1]] for key in (write, when, start)]
    if np.logical_and.reduce(alike).any():
        raise NoTimetable
    return order


def as_it_comes(when: Floats, start: Floats, what: Ints, place: Ints) -> Ints:
    """An order of mail: of what comes at one instant first what was sent first, of one transmission by place.
    Raises NoTimetable if that does not tell.
    """
    order = np.lexsort((place, start, when))
    alike = [key[order[1:]] == key[order[:-1]] for key in (when, start)]
    if (np.logical_and(*alike) & (what[order[1:]] != what[order[:-1]])).any():
        raise NoTimetable
    return order


def order_of(end: Floats, start: Floats, time: Floats, began: Floats) -> Ints:
    """Arrivals and gradients in the order in which the simulator comes to them: at one instant arrivals
    first, and of either what was begun first. Raises NoTimetable if that does not tell.
    """
    instants = np.concatenate([end, time])
    order = np.argsort(instants)
    if (np.diff(instants[order]) == 0).any():
        begun, later = np.concatenate([start, began]), np.arange(len(instants)) >= len(end)
        order = np.lexsort((begun, later, instants))
        alike = [key[order[1:]] == key[order[:-1]] for key in (instants, later, begun)]
        if np.logical_and.reduce(alike).any():
            raise NoTimetable
    return order


def inverse(order: Ints) -> Ints:
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place
