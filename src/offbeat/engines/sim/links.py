"""What agents give one another in a simulation: a sender's transmissions, one at a time; what has arrived."""

from collections import defaultdict
from collections.abc import Callable, Iterator

from offbeat.core.agent import Message, Publish
from offbeat.core.system.streams import BufferedStream, Purpose, uniform
from offbeat.core.vector import Scope
from offbeat.engines.outbox import LateBound, Medium, Outbox, Register, Transmission, vectors
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.heap import DELIVERY, Heap
from offbeat.world.world import World

Deliver = Callable[[int, Transmission, Message], None]  # mail, to its receiver


class Links:
    """All agents' outboxes and registers."""

    def __init__(
        self, world: World, model_bytes: int, heap: Heap, recorder: Recorder, scope: Scope, deliver: Deliver
    ) -> None:
        agents, seed = range(len(heap.incarnation)), world.seed
        self.heap, self.recorder, self.scope, self.deliver = heap, recorder, scope, deliver
        self.model_bytes, self.loss = model_bytes, world.loss
        self.messages, self.bytes_sent = 0, 0  # of transmissions that have started
        self.outbox = [Outbox() for _ in agents]
        # of every reader: the newest versions that it has not read, and what it holds of those it has read
        self.arrived: list[dict[Register, Transmission]] = [{} for _ in agents]
        self.registers = [defaultdict[Register, LateBound](LateBound) for _ in agents]
        delays = [world.communication_delay(i) for i in agents]
        self._time = [BufferedStream(delays[i].draw, seed, Purpose.COMMUNICATION, i) for i in agents]
        self._lost = [BufferedStream(uniform, seed, Purpose.LOSS, i) for i in agents]

    def give(self, sender: int, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        """Send something, or have it wait for the sender's link."""
        incarnation = self.heap.incarnation
        item = Transmission(sender, medium, to, message, incarnations=tuple([incarnation[j] for j in to]))
        outbox = self.outbox[sender]
        if outbox.busy:
            outbox.put(item)
            self.scope.settle()  # accumulated messages may have been added up
        else:
            outbox.busy = True
            self._transmit(item)

    def read(self, i: int) -> Iterator[tuple[Transmission, Message]]:
        """What is new in the registers that agent i reads, its vectors moved on to it."""
        fresh, self.arrived[i] = self.arrived[i], {}
        for register, item in fresh.items():
            yield item, self.registers[i][register].moved_on(item.message)

    def forget(self, i: int) -> None:
        """Agent i is gone, and with it what it sent and was sent."""
        self.outbox[i] = Outbox()
        self.arrived[i].clear()
        self.registers[i].clear()
        for arrived, held in zip(self.arrived, self.registers, strict=True):
            for register in [register for register in (*arrived, *held) if register[0] == i]:
                arrived.pop(register, None)
                held.pop(register, None)

    def _transmit(self, item: Transmission) -> None:
        i, now, size = item.sender, self.heap.now, 0
        item.kind = self.recorder.kind(item.message)
        for v in vectors(item.message).values():
            size += v.nbytes
            if item.version < 0 and v.stamp is not None:
                item.version = v.stamp.version
        delay = self._time[i]() * size / self.model_bytes if size else 0.0
        item.start, item.end = now, now + delay
        self.messages += 1
        self.bytes_sent += size
        self.recorder.transmissions.append(item.start, item.end, i, item.kind, size)
        self.heap.at(item.end, DELIVERY, i, self._arrive, item)

    def _arrive(self, sender: int, item: Transmission) -> None:
        loss, incarnation = self.loss, self.heap.incarnation
        register = item.register if item.medium is Publish else None
        for j, receiver in zip(item.to, item.incarnations, strict=True):
            lost = register is not None and loss and self._lost[sender]() < loss
            if lost or not 0 < receiver == incarnation[j]:
                continue
            if register is None:
                self.deliver(j, item, item.message)
            else:
                arrived = self.arrived[j]
                arrived.pop(register, None)  # the newest is handed over last
                arrived[register] = item
        outbox = self.outbox[sender]
        following = outbox.take()
        outbox.busy = following is not None
        if following is not None:
            self._transmit(following)
