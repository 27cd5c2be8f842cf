"""How far a learning rate takes the average model, of an algorithm whose step is a share of a gradient.

    R-FAST (arXiv:2307.11617), symmetric W = A:   w / ((1 + tau (1 - w)) (1 + (tau - 1) (1 - w))),
    w = trace(W) / n,   tau: how many rounds old what is mixed is, at least 1

times lr and the mean gradient, a round. z_i is the share w_ii of what agent i tracks; the rest is on its way,
for tau rounds, of which one is that in which it is given. And a model that is tau rounds old lacks the steps
of these, which holds the average back. Derived here.

`rfast:matched` makes steps of lr (2 - w_ii) / w_ii. With these the average model moves by lr times the mean
gradient a round, on every such graph, if tau = 1.
"""

from offbeat.core.errors import SettingError
from offbeat.theory.bounds import Spectrum


def tracked_step(w: Spectrum, tau: float = 1.0) -> float:
    """The first equation: R-FAST's step, in learning rates. Raises SettingError for tau below 1."""
    if not tau >= 1:
        raise SettingError(f"What is mixed is at least one round old; got tau = {tau:g}.")
    away = 1 - w.kept
    return w.kept / ((1 + tau * away) * (1 + (tau - 1) * away))
