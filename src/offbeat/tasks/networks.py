"""Networks by name, one row each in `NETWORKS`: what they take, what their width is, and how they are made.

None of them has running statistics or dropout: models are averaged, and runs repeat to the bit. So norms are
GroupNorm in two groups, as arXiv:2102.04761 has them in ResNet-20; that VGG-11 has them too is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.core.errors import SettingError, unknown
from offbeat.tasks.dataset import Images
from offbeat.tasks.text import LENGTH, Text

GROUPS = 2  # of a GroupNorm
SIDE = 32  # pixels that the networks with fixed sizes take; smaller images get a margin
BLOCKS, HEADS = 2, 4  # of the transformer


@dataclass(frozen=True)
class Network:
    """A row of `NETWORKS`.

    Attributes:
        make: from samples and width to a module, whose outputs are [B, classes], or [B, LENGTH, symbols]
        about: where it is from, and what is ours
        width: what is usual
        widens: what the width is of
        multiple: the width is one of this
        reads: "images", or "characters"
        side: images are at most so wide; 0: any
    """

    make: Callable[..., nn.Module]
    about: str
    width: int
    widens: str
    multiple: int = 1
    reads: str = "images"
    side: int = 0


class Pixels(nn.Module):
    """Bytes [B, C, H, W] -> numbers with mean 0 and deviation 1 in each channel of the training images; with
    a black margin up to `side` pixels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, images: Images, side: int = 0) -> None:
        super().__init__()
        mean, deviation = moments(images)
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("deviation", deviation.view(-1, 1, 1))
        spare = [max(0, side - size) for size in (images.train_x.shape[3], images.train_x.shape[2])]
        self.margin = [part for each in spare for part in (each // 2, each - each // 2)]
        self.scale = images.scale

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x.float() / self.scale, self.margin)
        return (x - self.mean) / self.deviation


def moments(images: Images) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel's pixels in the training images, [C] each, from whole numbers."""
    values = torch.arange(images.scale + 1, dtype=torch.float64)
    found = []
    for channel in range(images.train_x.shape[1]):
        pixels = images.train_x[:, channel].cpu().flatten()
        share = pixels.bincount(minlength=len(values)).double() / len(pixels)
        mean = float(share @ values)
        found.append([mean, max(float(share @ (values - mean).square()), 1e-12) ** 0.5])
    mean, deviation = torch.tensor(found, dtype=torch.float64).T / images.scale
    return mean.float(), deviation.float()


def perceptron(images: Images, width: int) -> nn.Module:
    size = images.train_x[0].numel()
    layers = [nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(Pixels(images), *layers, nn.Linear(width, images.classes))


def lenet(images: Images, width: int) -> nn.Module:
    first, second, third, fourth = width, 8 * width // 3, 20 * width, 14 * width
    pooled = [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        Pixels(images, SIDE), nn.Conv2d(images.train_x.shape[1], first, 5), *pooled,
        nn.Conv2d(first, second, 5), *pooled, nn.Flatten(), nn.Linear(25 * second, third), nn.ReLU(),
        nn.Linear(third, fourth), nn.ReLU(), nn.Linear(fourth, images.classes),
    )  # fmt: skip


VGG_A = (1, 0, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8, 0)
"""Channels of the convolutions of VGG's configuration A in widths; 0: the largest of each 2x2."""


def vgg11(images: Images, width: int) -> nn.Module:
    layers, channels = list[nn.Module](), images.train_x.shape[1]
    for times in VGG_A:
        if times:
            convolution = nn.Conv2d(channels, times * width, 3, padding=1)
            channels = times * width
            layers += [convolution, nn.GroupNorm(GROUPS, channels), nn.ReLU()]
        else:
            layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(channels, images.classes)]
    return _started(nn.Sequential(Pixels(images, SIDE), *layers, *head))


class Residual(nn.Module):
    """Two convolutions, and what came in beside them: with fewer pixels every second one, with more channels
    zeros in the others (option A of arXiv:1512.03385).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.more = 1 if before == after else 2, after - before
        self.first = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(GROUPS, after) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norms[0](self.first(x)).relu()
        beside = functional.pad(x[:, :, :: self.stride, :: self.stride], [0, 0, 0, 0, 0, self.more])
        out: Tensor = (self.norms[1](self.second(inner)) + beside).relu()
        return out


class Spread(nn.Module):
    """[B, C, H, W] -> [B, C]: the mean over all places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def resnet20(images: Images, width: int) -> nn.Module:
    first = nn.Conv2d(images.train_x.shape[1], width, 3, padding=1, bias=False)
    sizes = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
    blocks = [Residual(a, b) for a, b in pairwise(sizes)]
    stem = [Pixels(images), first, nn.GroupNorm(GROUPS, width), nn.ReLU()]
    return _started(nn.Sequential(*stem, *blocks, Spread(), nn.Linear(4 * width, images.classes)))


def _started(module: nn.Module) -> nn.Module:
    """Convolutions begin as arXiv:1502.01852 has it, for what they give out; the rest as torch has it."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return module


class Attention(nn.Module):
    """Every character looks at those before it, with several heads; the norms come first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.looks, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.register_buffer("later", torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1))

    later: Tensor

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.looks(self.norms[0](x)).view(batch, length, 3, HEADS, width // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # [B, HEADS, LENGTH, width / HEADS] each
        scores = q @ k.transpose(-1, -2) / (width // HEADS) ** 0.5
        seen = scores.masked_fill(self.later[:length, :length], -torch.inf).softmax(-1) @ v
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.inner(self.norms[1](x))
        return out


class Transformer(nn.Module):
    """Characters [B, LENGTH] -> scores of those that follow, [B, LENGTH, symbols]."""

    def __init__(self, text: Text, width: int) -> None:
        super().__init__()
        self.symbols, self.places = nn.Embedding(len(text.symbols), width), nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*[Attention(width) for _ in range(BLOCKS)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(text.symbols), bias=False)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(
            self.norm(self.blocks(self.symbols(x) + self.places.weight[: x.shape[-1]]))
        )
        return scores


NETWORKS = {
    "mlp": Network(
        perceptron, "two hidden layers with ReLU; of MNIST the '2NN' of arXiv:1602.05629", 200,
        "units of each hidden layer",
    ),
    "lenet": Network(
        lenet, "LeNet-5 (LeCun et al. 1998) with ReLU, the largest of each 2x2, and all maps connected", 6,
        "maps of the first convolution", 3, side=SIDE,
    ),
    "vgg11": Network(
        vgg11, "the convolutions of VGG's configuration A (arXiv:1409.1556), each with a GroupNorm; one "
        "linear layer on top: arXiv:2505.10322 says 'modified', and not how", 64,
        "channels of the first convolution", GROUPS, side=SIDE,
    ),
    "resnet20": Network(
        resnet20, "ResNet-20 for CIFAR (arXiv:1512.03385) with GroupNorm in 2 groups, as in arXiv:2102.04761",
        16, "channels of the first convolution", GROUPS,
    ),
    "transformer": Network(
        Transformer, f"{BLOCKS} blocks of {HEADS} heads over {LENGTH} characters, norms first, no dropout",
        64,
        "numbers for each character", HEADS, reads="characters",
    ),
}  # fmt: skip
"""Name -> row, in the order in which they are listed."""


def network(name: str, samples: Images | Text, width: int | None) -> nn.Module:
    """The network of that name for these samples, at its start; drawn from torch's global stream.

    Raises SettingError for an unknown name, and for samples and widths that it does not take.
    """
    if name not in NETWORKS:
        raise unknown("model", name, NETWORKS)
    row = NETWORKS[name]
    reads = "images" if isinstance(samples, Images) else "characters"
    if row.reads != reads:
        able = ", ".join(each for each, row in NETWORKS.items() if row.reads == reads)
        raise SettingError(f"{name} takes {row.reads}, and {samples.name} has {reads}; expected {able}.")
    if row.side and not row.side - 4 <= (side := samples.train_x.shape[-1]) <= row.side:
        raise SettingError(
            f"{name} takes images of {row.side} pixels or a few less; {samples.name} has {side}. Expected "
            "mlp or resnet20, or another task."
        )
    width = row.width if width is None else width
    if width < 1 or width % row.multiple:
        kind = f"a multiple of {row.multiple}" if row.multiple > 1 else "1 or more"
        raise SettingError(f"The width of {name} ({row.widens}) is {width}; expected {kind}.")
    return row.make(samples, width)
