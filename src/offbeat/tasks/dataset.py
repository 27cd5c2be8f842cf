"""Samples in memory: images as bytes, for networks; and as rows of numbers, for regressions."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples for training and some for testing."""

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor

    def to(self, device: torch.device | str) -> Self:
        x, y, test_x, test_y = (t.to(device) for t in (self.train_x, self.train_y, self.test_x, self.test_y))
        return replace(self, train_x=x, train_y=y, test_x=test_x, test_y=test_y)


@dataclass(frozen=True, eq=False)
class Images(Samples):
    """Images as bytes, uint8 [N, channels, height, width], with labels int64 [N], every one in [0, classes).

    Attributes:
        scale: a pixel is a byte / scale
        remark: what somebody should know who reports results on them; empty: nothing
    """

    classes: int
    scale: int = 255
    remark: str = ""

    def flat(self) -> "DataSet":
        """The same as rows of numbers, in memory of their own."""
        x, test_x = (_rows(images, self.scale) for images in (self.train_x, self.test_x))
        return DataSet(
            self.name, x, self.train_y.clone(), test_x, self.test_y.clone(), self.classes, self.remark
        )


def _rows(images: Tensor, scale: int) -> Tensor:
    pixels = images.flatten(1).numpy()
    return torch.from_numpy(np.divide(pixels, np.float32(scale), dtype=np.float32))


@dataclass(frozen=True, eq=False)
class DataSet(Samples):
    """Images as rows of D pixels, float32 [N, D], every pixel in [0, 1], with labels int64 [N], every one in
    [0, classes). remark: as that of the images
    """

    classes: int
    remark: str = ""
