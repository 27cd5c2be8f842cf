"""Of every neighbour the newest model that it gave away: what algorithms that wait for nobody share."""

from dataclasses import dataclass, field
from typing import Any

from offbeat.core.agent import Agent, View
from offbeat.core.vector import Vector


@dataclass
class Newest(Agent):
    """Neighbours give away models, in messages whose one field is `x`; nobody waits for them.

    Attributes:
        heard: neighbour -> the newest model of it that has come. Who was lost is forgotten, and has to be
            heard again when it returns; until then it counts as the agent itself (`forms.mix`)
    """

    heard: dict[int, Vector] = field(init=False, default_factory=dict)

    def on_message(self, src: int, message: Any) -> None:
        """A neighbour's newest replaces the older one."""
        self.heard[src] = message.x

    def on_view(self, view: View) -> None:
        """Forget who was lost."""
        self.view = view
        self.heard = {j: x for j, x in self.heard.items() if j in view.w}
