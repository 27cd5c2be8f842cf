"""How fast a matrix mixes, from its eigenvalues: dense ones of small graphs, found by iteration of large."""

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

DENSE = 500  # up to this many agents the eigenvalues come from a dense solver


def second_modulus(w: sparse.csr_array, symmetric: bool) -> float:
    """The second largest modulus of the eigenvalues of W; 0 for a single agent.

    A large symmetric W: Lanczos on W - 1 1^T / n, where lambda_1 is gone. It converges slowly where mixing is
    slow; such graphs are long and thin, so W - sigma I factors cheaply, and the eigenvalues next to sigma are
    found: just above 1, and just below Gershgorin's bound 2 min_i w_ii - 1.
    """
    n = w.shape[0]
    if n <= DENSE:
        dense = w.toarray()
        values = np.linalg.eigvalsh(dense) if symmetric else np.linalg.eigvals(dense)
        return float(np.sort(np.abs(values))[-2]) if n > 1 else 0.0
    options = {"v0": np.random.default_rng(0).standard_normal(n), "return_eigenvectors": False}
    deflated = linalg.LinearOperator((n, n), matvec=lambda v: w @ v - v.mean(), dtype=np.float64)
    try:
        if symmetric:
            return float(abs(linalg.eigsh(deflated, k=1, maxiter=200, **options)[0]))
        return float(min(abs(linalg.eigs(w, k=2, maxiter=1000, **options))))
    except linalg.ArpackNoConvergence:
        if not symmetric:
            return float(np.sort(np.abs(np.linalg.eigvals(w.toarray())))[-2])
    top = linalg.eigsh(w.tocsc(), k=2, sigma=1.0 + 1e-9, **options)
    low = linalg.eigsh(w.tocsc(), k=1, sigma=2.0 * w.diagonal().min() - 1.0 - 1e-6, **options)
    return float(max(min(top), -low[0]))
