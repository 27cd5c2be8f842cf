"""Robust fully asynchronous stochastic gradient tracking. arXiv:2307.11617."""

from dataclasses import dataclass, field

from offbeat.core.agent import Agent, View
from offbeat.core.forms import mix, pin, total, zero
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Stepped:
    """v_i, the sender's model after its local step."""

    v: Vector


@dataclass(frozen=True)
class Given:
    """rho_ji, the sum of all tracked mass that the sender ever gave to this receiver."""

    rho: Vector


@dataclass
class RFAST(Agent):
    """Track the sum of everybody's gradients; running sums make lost and late messages harmless.

        zhalf <- z_i + sum_j (rho_ij - used_ij) + g_i(x_i) - g_i^old
        z_i   <- a_ii zhalf,     rho_ji <- rho_ji + a_ji zhalf,     used_ij <- rho_ij
        v_i   <- x_i - lr z_i
        x_i   <- w_ii v_i + sum_j w_ij v_j

    Paper -> code: z -> `z`, rho_ji -> `given[j]`, the newest rho_ij -> `got[j]`, rho-tilde_ij (what has
    been consumed of it) -> `used[j]`, v_j -> `heard[j]`, the last gradient -> `g`.

    Conserved: sum_i z_i + sum over links (given - used) = sum_i g_i, at every instant.

    Differs from the paper, as far as we know it: z starts at 0 and the first gradient enters through the
    general formula; the loop is cut at the gradient (z, v, mix) rather than before the local step, so v_i has
    the newest gradient in it and is sent at once, with rho_ji, when that gradient is done, where the paper
    makes v_i before the gradient and sends both after it; zhalf is summed as (z - g_old) + g + fresh mass, so
    that one agent alone is SGD to the bit; the step is the local rule applied to z.
    Ours: when j is lost, i takes back `given[j]` and returns `used[j]`, which restores the sum among those
    that are left; j returns with nothing given and nothing used. `matched`: lr (2 - w_ii) / a_ii for lr, by
    which the average model goes as far as SGD's where what is mixed is one round old (`theory.steps`).
    """

    matched: bool = False
    sends_models = (*[Stepped],)
    z: Vector = field(init=False, repr=False)
    g: Vector = field(init=False, repr=False)
    heard: dict[int, Vector] = field(init=False, default_factory=dict)
    given: dict[int, Vector] = field(init=False, default_factory=dict)
    got: dict[int, Vector] = field(init=False, default_factory=dict)
    used: dict[int, Vector] = field(init=False, default_factory=dict)

    def start(self) -> None:
        """Nothing is tracked yet."""
        self.z = self.g = zero(self.x)
        self.compute(self.x)

    def on_message(self, src: int, message: Stepped | Given) -> None:
        """Newest wins, for models and for running sums."""
        match message:
            case Stepped(v):
                self.heard[src] = v
            case Given(rho):
                self.got[src] = rho

    def on_gradient(self, g: Vector) -> None:
        """One iteration; the next gradient is taken at the mixed model."""
        half = self.z - self.g + g
        for j, rho in self.got.items():
            half = half + rho - self.used[j] if j in self.used else half + rho
            self.used[j] = pin(rho)
        self.got, self.g = {}, g
        self.give(half)
        w_ii, a_ii = self.view.w[self.me], self.view.a[self.me]
        v = self.x - self.rule((2 - w_ii) / a_ii * self.z if self.matched else self.z)
        self.offer(v)
        self.x = mix(self.view.w, self.heard, own=v)
        self.compute(self.x)

    def give(self, half: Vector) -> None:
        """Shares of what is tracked, to each neighbour its own sum of them; the rest is kept."""
        for j, a_ji in self.view.a.items():
            if j != self.me:
                before = self.given[j] if j in self.given else zero(self.x)
                self.given[j] = total([a_ji * half], start=before)
                self.publish(j, Given(self.given[j]))
        self.z = self.view.a[self.me] * half

    def offer(self, v: Vector) -> None:
        """The stepped model to all."""
        self.publish(self.view.listeners, Stepped(v))

    def on_view(self, view: View) -> None:
        """Close the books with who was lost: what it got from us comes back, what we used of it goes."""
        self.view = view
        self.heard = {j: v for j, v in self.heard.items() if j in view.peers}
        self.got = {j: rho for j, rho in self.got.items() if j in view.peers}
        for j in [j for j in self.given if j not in view.peers]:
            self.z = self.z + self.given.pop(j)
        for j in [j for j in self.used if j not in view.peers]:
            self.z = self.z - self.used.pop(j)
