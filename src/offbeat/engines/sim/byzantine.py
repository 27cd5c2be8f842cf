"""What Byzantine agents send in place of what they were to send."""

from dataclasses import replace

import torch

from offbeat.core.agent import Message
from offbeat.core.system.streams import Purpose, stream
from offbeat.core.vector import Parts, Vector
from offbeat.engines.outbox import vectors
from offbeat.world.changes import Byzantine


class Liar:
    """Changes what one agent sends, as values: what it gave, and may still mix itself, stays as it is."""

    def __init__(self, how: Byzantine, seed: int) -> None:
        self._how, self._rng = how, stream(seed, Purpose.BYZANTINE, how.agent)

    def __call__(self, message: Message) -> Message:
        """The message with every vector v as -scale v, or as v + noise z, in the order of its fields.

        Numbers stay, and so does what the trace says of the vectors.
        """
        wrong = {name: Vector(self._wrong(v.parts), v.stamp) for name, v in vectors(message).items()}
        return replace(message, **wrong)

    def _wrong(self, parts: Parts) -> Parts:
        if self._how.scale:
            return tuple([part * -self._how.scale for part in parts])
        return tuple([part + self._noise(part) for part in parts])

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        drawn = torch.from_numpy(self._rng.standard_normal(like.numel()) * self._how.noise)
        return drawn.to(device=like.device, dtype=like.dtype)
