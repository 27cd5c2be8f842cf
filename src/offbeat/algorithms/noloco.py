"""Low-communication training without all-reduce: outer steps in random pairs. arXiv:2506.10911."""

from dataclasses import dataclass, field

from offbeat.algorithms.diloco import DiLoCo
from offbeat.core.pairs import partners
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Offer:
    """The sender's phi before its k-th outer step, and what its local steps added to it."""

    k: int
    phi: Vector
    d: Vector


@dataclass
class NoLoCo(DiLoCo):
    """H steps on one's own, then an outer step with one random other agent, which also draws both together.

        x_i <- x_i - lr g_i(x_i),   H times from x_i = phi_i;   d_i = x_i - phi_i
        m_i <- beta m_i + outer_lr (d_i + d_j) / 2 + outer_lr ((phi_i + phi_j) / 2 - phi_i)
        phi_i <- phi_i + m_i

    Conserved by the last term: sum_i phi_i, in every round; so the sum moves as in `diloco`, but for the form
    of its momentum.

    Paper -> code, by its authors' program: step_params -> `phi`; p - p_old -> `d`; momentum -> `m`;
    number_of_local_steps -> `h`, those between two exchanges. j is `partners(k, n)[i]`, k -> `outer`.

    Attributes:
        outer_lr, outer_momentum: of the outer step; 0.7 and 0.3 are of its authors' settings. With 0.7 and
            0.9, as in `diloco`, nine agents drift apart without end: what draws pairs together overshoots
        outer: outer steps begun, k

    Differs from the paper, of which we had the authors' program, not the formulas: groups are pairs; inner
    steps are those of the local rule, there Adam's; a model is one piece, where theirs is a pipeline whose
    stages are routed at random; h is 10 by default, ours, where their settings have 50 and more. As there,
    pairs depend on the round alone, the same for all seeds. Ours: with an odd number of agents one of them
    makes its outer step alone.
    """

    outer_momentum: float = 0.3
    d: Vector | None = field(init=False, default=None)
    outer: int = field(init=False, default=0)
    offers: dict[int, Offer] = field(init=False, default_factory=dict)

    def average(self, v: Vector) -> None:
        """Offer to this round's partner what was added to phi: -v."""
        self.outer += 1
        k = self.outer
        j, self.d = partners(k, self.n)[self.me], -v
        offer = Offer(k, self.phi, self.d)
        if j == self.me:  # left over
            self.offers[k] = offer
        else:
            self.send(j, offer)
        self.meet()

    def on_message(self, src: int, message: Offer) -> None:  # type: ignore[override]
        """A partner's; it may be there first."""
        self.offers[message.k] = message
        self.meet()

    def resume(self) -> None:
        """Everybody goes on from the same step, and offers again."""
        self.offers.clear()

    def meet(self) -> None:
        """The outer step, once both offers are here; then local ones from there."""
        offer = self.offers.pop(self.outer, None) if self.d is not None else None
        if offer is not None and self.d is not None:
            pull = (self.phi + offer.phi) / 2 - self.phi
            self.m = self.outer_momentum * self.m + self.outer_lr * ((self.d + offer.d) / 2 + pull)
            self.d, self.phi = None, self.phi + self.m
            self.x = self.phi
            self.compute(self.x)
