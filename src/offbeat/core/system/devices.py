"""Where the models, the data and the arithmetic of a run are: on the CPU, or on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from offbeat.core.errors import SettingError

CHUNK = 1 << 28  # bytes of models, at most, whose gradients a GPU evaluates in one call; or one model


def find(name: str) -> torch.device:
    """The device of that name, a GPU with its number. Raises SettingError unless runs can be made on it."""
    some = "'cpu', or 'cuda' or 'cuda:1' for a GPU"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingError(f"Got device '{name}', expected {some}.") from None
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "mps":
        wrong = f"expected {some}; what is measured needs float64, which MPS does not have"
    elif device.type != "cuda":
        wrong = f"expected {some}; runs are made on no other kind of device"
    elif not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        wrong = f"expected 'cpu': this torch build, {torch.__version__}, has no CUDA"
    elif count == 0:
        wrong = "expected 'cpu': no GPU is visible"
    else:
        index = torch.cuda.current_device() if device.index is None else device.index
        if index < count:
            return torch.device("cuda", index)
        wrong = f"expected one of {', '.join(f'cuda:{k}' for k in range(count))}"
    raise SettingError(f"Got device '{name}', {wrong}.")


def free(device: torch.device) -> float:
    """Bytes of a GPU's memory that this process may still use, those included that torch keeps for it."""
    unused, _ = torch.cuda.mem_get_info(device)
    return float(unused + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


@contextmanager
def exact() -> Iterator[None]:
    """Convolutions on a GPU in full float32, where cuDNN may keep 10 bits, and with the same bits every time.

    Products of matrices are left as they are set: in full float32 unless the user said otherwise.
    """
    cudnn: Any = torch.backends.cudnn
    by_operation = hasattr(cudnn, "conv")  # since torch 2.9
    wanted: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", False), (cudnn, "deterministic", True)]
    wanted += [(cudnn.conv, "fp32_precision", "ieee")] if by_operation else [(cudnn, "allow_tf32", False)]
    before = [getattr(owner, name) for owner, name, _ in wanted]
    try:
        for owner, name, value in wanted:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(wanted, before, strict=True):
            setattr(owner, name, value)


@contextmanager
def one_thread() -> Iterator[None]:
    """One OpenMP thread: faster for small models, and the bits do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
