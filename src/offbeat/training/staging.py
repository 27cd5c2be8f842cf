"""The way of a model on a GPU to and from the host, where it is mixed: pinned memory, a side stream.

Pinned memory is copied by the GPU itself, at the full speed of the bus. The side stream waits for what the
training stream has been given so far, the optimizer's step, and for nothing that is given to it afterwards;
the host waits for the side stream alone.
"""

import torch

from offbeat.core.vector import Leased, Parts


class Staging:
    """Host memory for the flat buffers of a model; those on the host already stand for themselves."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.host = Leased(_pinned(part) if part.is_cuda else part for part in parts)
        devices = {part.device for part in parts if part.is_cuda}
        self._streams = {at: torch.cuda.Stream(at) for at in devices}  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def down(self) -> Leased:
        """The buffers once all that was given to their stream has run; valid until the next `down`."""
        for device, stream in self._streams.items():
            stream.wait_stream(torch.cuda.current_stream(device))
        for part, host in zip(self.parts, self.host, strict=True):
            if part.is_cuda:
                with torch.cuda.stream(self._streams[part.device]):
                    host.copy_(part, non_blocking=True)
        for stream in self._streams.values():
            stream.synchronize()
        return self.host

    @torch.no_grad()
    def up(self, parts: Parts) -> None:
        """Buffers <- parts, in the order of their stream; the host does not wait for it."""
        for to, part, host in zip(self.parts, parts, self.host, strict=True):
            if not to.is_cuda:
                to.copy_(part)
                continue
            torch.cuda.current_stream(to.device).synchronize()  # an earlier copy may still run
            host.copy_(part)
            to.copy_(host, non_blocking=True)


def _pinned(part: torch.Tensor) -> torch.Tensor:
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
