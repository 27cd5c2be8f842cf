"""What theory takes as given of a task: `offbeat theory --task` reads it here."""

from typing import NamedTuple


class Constants(NamedTuple):
    """Numbers of the objectives f_i of all agents, each as small as it is known.

    Attributes:
        L: no gradient of an f_i changes by more than L times the distance
        sigma: E ||g_i - grad f_i||^2 <= sigma^2, g_i what agent i takes for the gradient
        start: sum_i (f_i(x^0) - inf f_i)
        how: where they are from, in words
    """

    L: float
    sigma: float
    start: float
    how: str = "as the task says"
