"""What agents give one another in a simulation: a sender's transmissions, one at a time; what has arrived.

[world.md](../../../../docs/world.md) has the equations, and which event comes when.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from offbeat.core.agent import Accumulate, Message, Publish
from offbeat.core.system.streams import BufferedStream, Purpose, uniform
from offbeat.core.vector import Scope, Vector
from offbeat.engines.outbox import (
    Compression,
    LateBound,
    Medium,
    Outbox,
    Receivers,
    Register,
    Transmission,
    values_of,
)
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.byzantine import Liar
from offbeat.engines.sim.fair import FairNetwork
from offbeat.engines.sim.heap import DELIVERY, Heap
from offbeat.world.sending import senders
from offbeat.world.world import World

Deliver = Callable[[int, Transmission, Message], None]  # mail, to its receiver


class Links:
    """All agents' outboxes and registers."""

    def __init__(
        self,
        world: World,
        model_bytes: int,
        heap: Heap,
        recorder: Recorder,
        scope: Scope,
        deliver: Deliver,
        compression: Compression | None = None,
    ) -> None:
        agents, seed = range(len(heap.incarnation)), world.seed
        self.heap, self.recorder, self.scope, self.deliver = heap, recorder, scope, deliver
        self.model_bytes, self.unicast, self.lossy = model_bytes, world.sending == "unicast", world.lossy
        self.messages, self.bytes_sent = 0, 0  # of transmissions that have started
        # By sender and receivers, their bytes.
        self._carried = [defaultdict[tuple[int, ...], int](int) for _ in agents]
        self.compression = compression
        # By message type: its number in the trace, and how its values are read.
        self._kinds: dict[type, tuple[int, Callable[[Message], tuple[Any, ...]]]] = {}
        self.outbox = [Outbox(compression) for _ in agents]
        # what every reader of a register holds of it; and by reader, of what it has not read, the newest
        self.registers = defaultdict[Register, dict[int, LateBound]](partial(defaultdict, LateBound))
        self.arrived: list[dict[LateBound, Transmission]] = [{} for _ in agents]
        self.senders = senders(world, agents)
        self.fair = FairNetwork(world, heap, self.senders, self._flowed) if world.network == "fair" else None
        delays = [self.fair.delay(i) if self.fair else world.communication_delay(i) for i in agents]
        self._time = [BufferedStream(delays[i].draw, seed, Purpose.COMMUNICATION, i) for i in agents]
        self._lost = [BufferedStream(uniform, seed, Purpose.LOSS, i) for i in agents]
        self._liars = {each.agent: Liar(each, seed) for each in world.byzantine}

    def give(self, sender: int, medium: Medium, to: tuple[int, ...], message: Message, letter: int) -> None:
        """Send something, or have it wait for the sender's link: as one, or for each receiver by itself."""
        outbox = self.outbox[sender]
        for each in [(j,) for j in to] if self.unicast else (to,):
            # (With names of fields this would take twice as long.)
            item = Transmission(sender, medium, each, message, self.heap.receivers(each), letter, to)
            if not outbox.busy and self.compression is None:
                outbox.busy = True  # nothing waits: it leaves at once, and is never in the queue
                self._transmit(item)
                continue
            outbox.put(item)
            if not outbox.busy:
                self._free(sender)
            elif medium is Accumulate:
                self.scope.settle()  # it may have been added to what waits

    def read(self, i: int) -> Iterator[tuple[Transmission, Message]]:
        """What is new in the registers that agent i reads, its vectors moved on to it."""
        fresh, self.arrived[i] = self.arrived[i], {}
        for held, item in fresh.items():
            yield item, held.moved_on(item.message)

    @property
    def carried(self) -> dict[tuple[int, int], int]:
        """Bytes by link of transmissions that have started: sender, receiver."""
        found = defaultdict[tuple[int, int], int](int)
        for i, sent in enumerate(self._carried):
            for to, size in sent.items():
                for j in to:
                    found[i, j] += size
        return found

    def forget(self, i: int) -> None:
        """Agent i is gone, and with it what it sent and was sent."""
        self.outbox[i] = Outbox(self.compression)
        self.arrived[i].clear()
        for register, readers in [*self.registers.items()]:
            readers.pop(i, None)
            if register[0] == i:
                del self.registers[register]
                for j, held in readers.items():
                    self.arrived[j].pop(held, None)
        if self.fair is not None:
            self.fair.drop(i)

    # -- transmissions -----------------------------------------------------------------------------

    def _transmit(self, item: Transmission) -> None:
        """It leaves: by flows of a fair network, or by its sender's server."""
        i, to, now, size = item.sender, item.to, self.heap.now, self._measured(item)
        item.start = now
        self._carried[i][to] += size
        if i in self._liars:
            item.message = self._liars[i](item.message)
        if self.fair is not None and size:
            self.messages += len(to)
            self.bytes_sent += size * len(to)
            self.fair.begin(item, size, [next(self._time[i]) * size / self.model_bytes for _ in to])
            return
        self.messages += 1
        self.bytes_sent += size
        sender, work = self.senders[i], next(self._time[i]) * size / self.model_bytes if size else 0.0
        if sender.uniform:
            item.end = sender.sent(now, work)
            self.heap.at(item.end, DELIVERY, self._arrive, i, item, item.receivers, True)
        else:  # the earliest first
            lives = dict(item.receivers)
            item.end, instants = sender.instants(now, work, to, waits=item.medium is not Publish)
            for instant, there in instants:
                receivers = tuple([(j, lives[j]) for j in there])
                self.heap.at(instant, DELIVERY, self._arrive, i, item, receivers, instant == item.end)
        self.recorder.transmissions.append(now, item.end, i, item.kind, size)

    def _measured(self, item: Transmission) -> int:
        """How many bytes it has; what the trace says of it is noted."""
        message, size = item.message, 0
        if (known := self._kinds.get(type(message))) is None:
            known = self._kinds[type(message)] = self.recorder.kind(message), values_of(type(message))
        item.kind, values = known
        for v in values(message):
            if isinstance(v, Vector):
                size += v.nbytes
                if item.version < 0 and v.stamp is not None:
                    item.version = v.stamp.version
        return item.size if item.packed else size

    def _flowed(self, item: Transmission, size: int, j: int, incarnation: int, last: bool) -> None:
        """In a fair network the flow to one receiver has ended."""
        i, now = item.sender, self.heap.now
        self.recorder.transmissions.append(item.start, now, i, item.kind, size)
        arrival = self.senders[i].arrives(now, j, waits=item.medium is not Publish)
        self._draw_loss(item)
        if arrival == now:
            self._arrive(i, item, ((j, incarnation),), last)
        else:
            self.heap.at(arrival, DELIVERY, self._arrive, i, item, ((j, incarnation),), False)
            if last:
                self._free(i)

    def _draw_loss(self, item: Transmission) -> None:
        """Who loses it: one number for each receiver, in their order, as soon as it is anywhere."""
        if self.lossy and item.missed is None and item.medium is Publish:
            item.missed = self.senders[item.sender].missing(item.to, self._lost[item.sender])

    def _arrive(self, sender: int, item: Transmission, receivers: Receivers, free: bool) -> None:
        """It is with these receivers; perhaps the server is free again, too."""
        now, incarnation, message = self.heap.now, self.heap.incarnation, item.message
        here = item if item.end == now else replace(item, end=now)
        if item.medium is not Publish:
            for j, receiver in receivers:
                if 0 < receiver == incarnation[j]:
                    self.deliver(j, here, message)
        else:
            self._draw_loss(item)
            missed, cuts = item.missed or (), self.senders[sender].cuts
            readers = self.registers[item.register]
            for j, receiver in receivers:
                lost = j in missed or (cuts and self.senders[sender].parted(j, now))
                if 0 < receiver == incarnation[j] and not lost:
                    arrived, held = self.arrived[j], readers[j]
                    arrived.pop(held, None)  # the newest is handed over last
                    arrived[held] = here
        if free and self.outbox[sender].queue:
            self._free(sender)
        elif free:
            self.outbox[sender].busy = False

    def _free(self, sender: int) -> None:
        outbox = self.outbox[sender]
        following = outbox.take()
        outbox.busy = following is not None
        if following is not None:
            self._transmit(following)
