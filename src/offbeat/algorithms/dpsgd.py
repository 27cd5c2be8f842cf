"""Decentralized parallel SGD, adapt then combine: a baseline of arXiv:1710.06952."""

from dataclasses import dataclass

from offbeat.core.forms import mix
from offbeat.core.rounds import Rounds
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Stepped:
    """The sender's model of round k after its local step, before it was mixed."""

    k: int
    v: Vector


@dataclass
class DPSGD(Rounds):
    """Every round, step from the own model, then mix what the neighbours made of theirs in that round.

        v_i^k = x_i^k - lr g_i(x_i^k),   x_i^{k+1} = sum_j w_ij v_j^k

    Adapt, then combine. As arXiv:1705.09056 writes D-PSGD, it is the recursion of `dsgd`: the step is added
    to the mixed models, x_i^{k+1} = sum_j w_ij x_j^k - lr g_i(x_i^k), combine then adapt. Implementations of
    it train first and then send and average, and it is their order that `dpsgd` names: nothing can be sent
    while the gradient is computed, and a step is mixed in the round in which it was made.

    Paper -> code: k -> `round`; v_j^k -> `letters[k][j]`.

    Attributes:
        local_steps: gradients for each round, all but the last followed by a step alone. Ours.

    Differs from the paper: the order, as just said; W may change from round to round, as arXiv:2003.09422 has
    it; crashes, which it leaves open. Where arXiv:1710.06952 runs D-PSGD as a baseline, we have not seen in
    which order.
    """

    changing_graph = True
    sends_models = (Stepped,)
    local_steps: int = 1

    def adapt(self, g: Vector) -> None:
        """Step, and give that away."""
        self.post(Stepped(self.round, self.x - self.rule(g)))

    def combine(self, heard: dict[int, Stepped]) -> None:
        """Mix what was stepped in this round."""
        v = {j: letter.v for j, letter in heard.items()}
        self.x = mix(self.here.w, v, own=v[self.me])
