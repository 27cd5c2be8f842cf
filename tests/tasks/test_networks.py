"""Networks by name, as tasks: their sizes, augmentation, what is judged, text by role; in every engine."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import PLAY
from mirrors import served
from torch import nn
from torch.nn.functional import pad

import offbeat
from offbeat import tasks
from offbeat.core.errors import DataError, SettingError
from offbeat.core.system.streams import Purpose, stream
from offbeat.tasks import text as texts
from offbeat.tasks.dataset import Images
from offbeat.tasks.networks import network
from offbeat.tasks.text import LENGTH, read_text, windows
from offbeat.tasks.trained import AUGMENTATIONS, MARGIN, PLACES, NetworkTask, seen

RUN: dict[str, Any] = {
    "task": "digits", "model": "mlp", "width": 4, "augment": "crop+flip", "batch": 4,
    "eval_samples": 20, "agents": 3, "topology": "ring", "until": 2, "eval_every": 1, "lr": 0.03,
}  # fmt: skip


def pictures(channels: int = 3, side: int = 32, count: int = 6, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8))
    return Images("pictures", x, torch.arange(count) % 10, x[:3], torch.arange(3), 10)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


VGG_HEAD = (25088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
NORMS = 2 * (64 + 128 + 2 * 256 + 4 * 512)


def test_networks_have_as_many_parameters_as_published() -> None:
    colour, grey = pictures(), pictures(1, 28)
    # arXiv:1512.03385 says 0.27 million; 269,722 with option A and a scale and shift for each channel
    assert size(network("resnet20", colour, None)) == 269_722
    # arXiv:1409.1556 says 133 million, of which this has the convolutions: 132,863,336 with its three layers
    vgg = size(network("vgg11", colour, None)) - NORMS - (512 + 1) * 10
    assert vgg + VGG_HEAD == 132_863_336
    assert size(network("mlp", grey, None)) == 199_210, "arXiv:1602.05629"
    # LeNet-5 with all maps connected, of 32x32 pixels: 61,706 where they are grey, 62,006 in colour
    assert size(network("lenet", grey, None)) == 61_706
    assert size(network("lenet", colour, None)) == 62_006
    play = windows(PLAY, Path("play"))
    v, w = len(play.symbols), 64
    block = 4 * w + (3 * w + 1) * w + w * 2 + (w + 1) * w + 8 * w * w + 5 * w
    assert size(network("transformer", play, None)) == 2 * v * w + LENGTH * w + 2 * block + 2 * w


@pytest.mark.parametrize(
    ("name", "samples", "width"),
    [
        ("resnet20", pictures(1, 8), 2),
        ("vgg11", pictures(1, 28), 2),
        ("lenet", pictures(), 3),
        ("mlp", pictures(), 5),
    ],
)
def test_widths_and_sizes_of_images(name: str, samples: Images, width: int) -> None:
    small = network(name, samples, width)
    assert small(samples.train_x).shape == (6, 10)
    assert size(small) < size(network(name, samples, None)) / 3


def test_the_transformer_sees_only_what_came_before() -> None:
    play = windows(PLAY, Path("play"))
    small = network("transformer", play, 8)
    x = play.train_x[:2].clone()
    before = small(x)
    x[:, 40] = (x[:, 40] + 1) % len(play.symbols)
    after = small(x)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40:], after[:, 40:])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "quadratic", "model": "mlp"}, "quadratic has no network"),
        ({"width": 3}, "'width' is of networks, and digits is trained without one"),
        ({"augment": "flip"}, "'augment' is of networks"),
        ({"model": "lenet"}, "takes images of 32 pixels or a few less; digits has 8"),
        ({"model": "resnet20", "width": 3}, "expected a multiple of 2"),
        ({"model": "transformer"}, "takes characters, and digits has images"),
        ({"model": "mlp", "eval_samples": 0}, "got 0"),
        ({"model": "mpl"}, "Did you mean 'mlp'"),
    ],
)
def test_what_does_not_apply_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        offbeat.simulate("adsgd", until=3, agents=3, topology="ring", **settings)
    assert said in str(caught.value)


def test_a_task_of_ones_own_has_no_network_of_ours() -> None:
    own = tasks.build("quadratic", 3, 0)
    with pytest.raises(SettingError, match="Got 'model' for the task quadratic"):
        offbeat.simulate("adsgd", task=own, until=3, topology="ring", model="mlp")


def test_all_executors_agree_and_a_seed_is_the_same_beside_others() -> None:
    how = ("levels", "batched", "event-by-event")
    assert len({offbeat.simulate("adsgd", executor=each, **RUN).digest for each in how}) == 1
    both = offbeat.compare("adsgd", seeds=2, **RUN).runs
    alone = offbeat.simulate("adsgd", seed=1, **RUN)
    assert both[1].digest == alone.digest
    assert both[0].digest != alone.digest, "another start, other minibatches"
    words = dict(both[0].settings.words())
    assert (words["model"], words["width"], words["augment"]) == ("mlp", "4", "crop+flip")
    assert "mlp of width 4" in str(offbeat.compare("adsgd", **RUN))


def test_a_network_says_nothing_of_a_regression() -> None:
    same: dict[str, Any] = {"agents": 3, "topology": "ring", "until": 2, "eval_every": 1}
    plain, named = offbeat.simulate("adsgd", **same), offbeat.simulate("adsgd", model="linear", **same)
    assert plain.digest == named.digest
    assert plain.settings == named.settings
    assert plain.settings["model"] is None
    assert (plain.settings["reg"], alone(RUN)["reg"]) == (0.001, 0.0)


def alone(settings: dict[str, Any]) -> Any:
    return offbeat.simulate("dsgd", **settings | {"until": 1, "eval_every": 1}).settings


@pytest.mark.parametrize("name", ["flip", "crop+flip"])
def test_a_view_is_a_cut_of_the_image_with_its_margin(name: str) -> None:
    x, views = pictures(2, 6, count=5).train_x, AUGMENTATIONS[name]
    rng = np.random.default_rng(0)
    which = torch.from_numpy(rng.integers(0, views, 5))
    which[0] = 0 if name == "flip" else 2 * (PLACES * MARGIN + MARGIN)  # as it is
    got = seen(x[None], which[None], views)[0]
    assert torch.equal(got[0], x[0])
    for image, view, mine in zip(x, which.tolist(), got, strict=True):
        wide, row, column = image, 0, 0
        if name != "flip":
            wide, (row, column) = pad(image, [MARGIN] * 4), divmod(view // 2, PLACES)
        cut = wide[:, row : row + 6, column : column + 6]
        assert torch.equal(mine, cut.flip(2) if view % 2 else cut)


def test_views_are_drawn_with_the_minibatch_from_the_agents_stream() -> None:
    task = tasks.build("digits", 3, 0, 8, model="mlp", width=4, augment="crop+flip")
    assert isinstance(task, NetworkTask)
    drawn = task.draw(1, stream(0, Purpose.DATA, 1), 200)
    assert drawn.shape == (200, 8)
    assert np.isin(drawn // task.views, task.minibatches.shards[1]).all()
    assert len({*(drawn % task.views).ravel().tolist()}) == task.views == 162
    x = tuple(part[None] for part in task.initial())
    (one,) = task.gradients([1], [drawn[0]], x)
    (other,) = task.gradients([1], [drawn[0] // 162 * 162 + (drawn[0] + 1) % 162], x)
    assert not torch.equal(one, other), "other views of the same images"


@pytest.mark.parametrize("partition", ["iid", "quantity:0.5"])
def test_what_is_judged_is_a_fixed_part(partition: str) -> None:
    some, every = (
        tasks.build("digits", 3, 0, partition=partition, model="mlp", width=4, eval_samples=count)
        for count in (300, None)
    )
    assert isinstance(some, NetworkTask)
    x = tuple(torch.stack([part, 0.9 * part]) for part in some.initial())
    losses, all_losses = some.losses(x), every.losses(x)
    assert losses == pytest.approx(all_losses, rel=0.05)
    assert not np.array_equal(losses, all_losses)
    held = some._held()
    assert sum(len(part) for _, part in held if part is not None) == pytest.approx(300, abs=2)
    assert sum(weight for weight, _ in held) == pytest.approx(1)
    count = some.test[0].shape[0] if some.test else 0
    assert count == 300
    # the gradient is that of what is judged
    step = 1e-3
    (g,) = some.full_gradients(tuple(part[:1].double().float() for part in x))
    along = tuple(part[:1] + step * g / g.norm() for part in x)
    rise = float((some.losses(along) - losses[:1])[0]) / step
    assert rise == pytest.approx(float(g.norm()), rel=0.05)


# -- text ------------------------------------------------------------------------------------------


def test_a_play_is_split_by_role(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text(PLAY)
    task = tasks.build("shakespeare", 2, 0, data=tmp_path, width=8)
    play = read_text(tmp_path)
    assert play.symbols == "".join(sorted({*PLAY}))
    said = {role: "".join(play.symbols[k] for k in play.train_x[play.columns["role"] == role].flatten())
            for role in ("First", "Second")}  # fmt: skip
    assert said["First"].startswith("abc abc ")
    assert "bad" in said["First"]
    assert ":" not in said["First"] + said["Second"], "a role's name is nothing that it says"
    assert {*said["Second"]} == {*"deab.\n"} & {*said["Second"]}
    assert torch.equal(play.train_x[0, 1:], play.train_y[0, :-1]), "what follows"
    shards = task.minibatches.shards  # type: ignore[attr-defined]
    assert [{*play.columns["role"][shard]} for shard in shards] == [{"First"}, {"Second"}]
    assert len(play.test_x) == 1 + 1, "the last tenth of each role"
    settings: dict[str, Any] = {
        "until": 6,
        "agents": 2,
        "topology": "ring",
        "width": 8,
        "lr": 0.5,
        "eval_every": 3,
    }
    run = offbeat.simulate("adsgd", task="shakespeare", data=tmp_path, **settings)
    assert run.settings["partition"] == "natural:role"
    assert run.measure == "accuracy"
    assert run.curve.loss[0] == pytest.approx(np.log(len(play.symbols)), rel=0.02), (
        "at the start nothing is known"
    )
    assert run.curve.loss[-1] < 0.95 * run.curve.loss[0]


def test_a_text_without_roles_is_cut_where_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("nobody speaks here, and it goes on " * 100)
    with pytest.raises(SettingError, match="'natural:role' needs data with a column 'role'"):
        tasks.build("shakespeare", 2, 0, data=tmp_path, width=8)
    task = tasks.build("shakespeare", 2, 0, data=tmp_path, width=8, partition="contiguous")
    shards = task.minibatches.shards  # type: ignore[attr-defined]
    assert [shard.tolist() for shard in shards] == [[*range(24)], [*range(24, 48)]]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"A:\nshort\n", "has 0 windows of 64 characters"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("".join(map(chr, range(300, 700))).encode(), "400 different characters; expected at most 256"),
    ],
)
def test_bad_texts_are_named(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "input.txt").write_bytes(raw)
    with pytest.raises(DataError, match=said):
        read_text(tmp_path)
    with pytest.raises(DataError, match="There is no text in the data directory"):
        read_text(tmp_path.parent)


def test_the_text_is_downloaded_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFBEAT_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served() as web:
        monkeypatch.setattr(texts, "MIRRORS", (web.url("a"),))
        web.files["/a/input.txt"] = PLAY.encode()
        with pytest.raises(DataError, match="does not match the known hash"):
            read_text()
        monkeypatch.setattr(texts, "SHA256", hashlib.sha256(PLAY.encode()).hexdigest())
        assert len(read_text().train_x) == len(read_text().train_x) > 0
        assert len(web.asked) == 2
