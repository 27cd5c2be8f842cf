"""The theory as something one can compute with: where each algorithm ends, what is known of the way there.

A statement names its source, or says "derived here". What is computed here is what the tests hold runs to,
and how far a run of quadratics is from its limit; nothing of it is used to make a run.
"""

from offbeat.theory.limits import LIMITS, limit

__all__ = ["LIMITS", "limit"]
