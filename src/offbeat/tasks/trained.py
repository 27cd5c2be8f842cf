"""Networks on the data sets: a module as a task, with views of its images and a part that is judged."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from offbeat.core.errors import SettingError, unknown
from offbeat.core.system.streams import Purpose, seeded, stream
from offbeat.tasks.dataset import Images
from offbeat.tasks.minibatches import Indices, Minibatches, Shards
from offbeat.tasks.module import Held, ModuleTask
from offbeat.tasks.networks import network
from offbeat.tasks.objective import AGENTS
from offbeat.tasks.text import Text

MARGIN = 4  # black pixels around an image, before it is cut out again
PLACES = 2 * MARGIN + 1  # where a cut can begin, in each direction

AUGMENTATIONS = {"none": 1, "flip": 2, "crop+flip": 2 * PLACES**2}
"""Name -> how many views there are of an image. flip: as it is, or mirrored. crop+flip: that, after a cut at
a random place with a margin of 4 black pixels (arXiv:1512.03385).
"""


class NetworkTask(ModuleTask):
    """A network of `offbeat.tasks.networks` on images, or on text: what each next character is.

    f_i(x) = mean over i's data of -log softmax(network_x(input))_target + reg * sum_l x_l^2 / (1 + x_l^2).

    All agents start from one model, drawn from the seed. On a CPU gradients are evaluated one by one, so that
    their bits are the same in every engine; on a GPU together. With views, a sample is an image times their
    number plus which of them, drawn in one from the agent's stream of minibatches.

    Attributes:
        data: with everything on the device of the run
        views: of each image: one of `AUGMENTATIONS`
        eval_samples: of how many training samples loss and gradient norm are judged, and of how many test
            samples accuracy; drawn once, from the seed. Of unequal shards of each its share. None: of all
    """

    def __init__(
        self, data: Images | Text, model: str, width: int | None, shards: Shards, seed: int, batch: int,
        reg: float = 0.0, objective: str = AGENTS, augment: str = "none", eval_samples: int | None = None,
    ) -> None:  # fmt: skip
        if augment not in AUGMENTATIONS:
            raise unknown("augmentation", augment, AUGMENTATIONS)
        if augment != "none" and isinstance(data, Text):
            raise SettingError(f"'{augment}' is of images; expected no augmentation of {data.name}.")
        self.data, self.views, self.seed = data, AUGMENTATIONS[augment], seed
        self.eval_samples, self.remark = eval_samples, data.remark
        rng = stream(seed, Purpose.TASK)
        with seeded(int(rng.integers(2**63))):
            module = network(model, data, width).to(data.train_x.device)
        self._order = rng.permutation(len(data.train_x))
        test = _some(data.test_x, data.test_y, rng, self._judged(len(data.test_x), "test"))
        loss = cross_entropy if isinstance(data, Images) else _of_characters
        train = data.train_x, data.train_y
        super().__init__(module, loss, train, test, batch=batch, reg=reg, shards=shards, name=data.name,
                         objective=objective)  # fmt: skip
        self.measure, self._by_row = "accuracy", True

    def _judged(self, count: int, which: str) -> int:
        """How many of these samples are judged. Raises SettingError for a number that makes no sense."""
        wanted = count if self.eval_samples is None else self.eval_samples
        if wanted < 1:
            raise SettingError(f"At least one sample of the {which} data is judged; got {wanted}.")
        return min(wanted, count)

    def _hold(self, shards: Shards, batch: int, objective: str) -> None:
        super()._hold(shards, batch, objective)
        self.minibatches = Minibatches(shards, batch, self.views)

    def _held(self) -> Held:
        """The parts that are judged, each with its weight."""
        held, count = super()._held(), len(self._order)
        wanted = self._judged(count, "training")
        if wanted == count:
            return held
        if self.weights.shares is None:
            return [(1.0, self._order[:wanted])]
        place = np.empty(count, np.int64)
        place[self._order] = np.arange(count)
        return [(weight, _first(part, place, wanted / count)) for weight, part in held if part is not None]

    def _chosen(self, index: Tensor) -> tuple[Tensor, Tensor]:
        if self.views == 1:
            return super()._chosen(index)
        x, y = super()._chosen(index // self.views)
        return seen(x, index % self.views, self.views), y


def _some(x: Tensor, y: Tensor, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """So many of these samples, or all as they are."""
    if count == len(x):
        return x, y
    index = torch.from_numpy(np.sort(rng.permutation(len(x))[:count])).to(x.device)
    return x[index], y[index]


def _first(part: Indices, place: np.ndarray, share: float) -> Indices:
    """That share of these samples, one at least: those that stand first in an order."""
    return part[np.argsort(place[part], kind="stable")[: max(1, round(share * len(part)))]]


def _of_characters(out: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(out.flatten(0, 1), y.flatten())


def seen(x: Tensor, which: Tensor, views: int) -> Tensor:
    """The images [..., C, H, W], each as its view in [0, views) of `AUGMENTATIONS` shows it.

    A view is flip + 2 (PLACES row + column): a cut that begins at this row and column of the image with its
    margin, where there are more than two, mirrored if flip is 1.
    """
    images, view = x.flatten(0, -4), which.flatten()
    height, width = images.shape[-2:]
    down, across = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    rows, columns = down.expand(len(images), -1), across.expand(len(images), -1)
    columns = torch.where((view % 2 == 1)[:, None], columns.flip(1), columns)
    if views > 2:
        images, place = pad(images, [MARGIN] * 4), view // 2
        rows, columns = rows + (place // PLACES)[:, None], columns + (place % PLACES)[:, None]
    each = torch.arange(len(images), device=x.device)[:, None, None]
    cut = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return cut.permute(0, 3, 1, 2).reshape(x.shape)
