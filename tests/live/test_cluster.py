"""Several machines: what one shows is mixed on another as it is, mail arrives once, whatever is cut."""

import asyncio

from machines import Model, at_once, machines, publish, vector
from warm import needs_shared_memory

from offbeat.core.vector import Stamp
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.shm.wire import Tag

pytestmark = needs_shared_memory


def read(transport: Transport, *agents: int) -> list[tuple[int, float, Stamp | None, Tag]]:
    """What is new for an agent: source, value, stamp and tag."""
    found = []
    for reader in transport.poll(agents):
        (v,) = reader.vectors
        (part,) = v.parts
        assert (part == part[0]).all()
        found.append((reader.source, float(part[0]), v.stamp, reader.tag))
    return found


def test_what_is_published_on_one_machine_is_mixed_on_another_as_it_is() -> None:
    """One transfer for all readers of a machine, none to a machine that has none."""

    async def main() -> None:
        async with machines(0, 1, 1, 2) as there:
            first, others = there[0].agent(0), [there[1].agent(1), there[1].agent(2)]
            tag = Tag(5, 3, 1.25, 1.5)
            publish(first, Model(vector(7.0)), (1, 2), tag)
            for each in others:
                each.meet(0, 1)
            found = [read(each, 0) for each in others]
            while not all(found):
                await asyncio.sleep(0.01)
                found = [had or read(each, 0) for had, each in zip(found, others, strict=True)]
            assert found == [[(0, 7.0, Stamp(0, 7), tag)]] * 2
            assert [there[k].links[0].asked["newest answered"] for k in (1, 2)] == [1, 0]
            assert there[2].board.rows[0].tolist() == there[0].board.rows[0].tolist()

    at_once(main)
