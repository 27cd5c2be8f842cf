"""The partitions by name: what each promises, which objective unequal shards have, what is refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import offbeat
from offbeat.core.errors import SettingError
from offbeat.tasks import Logistic, Minibatches, build
from offbeat.tasks.dataset import DataSet
from offbeat.tasks.minibatches import Shards
from offbeat.tasks.objective import weights
from offbeat.tasks.partition import PARTITIONS, spelt, split
from offbeat.tasks.partition.equal import by_label, dirichlet

LABELS = np.random.default_rng(7).permutation(np.arange(600) % 10)
EXAMPLES = (
    *("skew:0.5", "dirichlet:0.1", "class-shares:0.5", "classes:2", "shards:2", "quantity:0.5", "iid"),
    "contiguous",
)


def shards_of(text: str, labels: np.ndarray = LABELS, n: int = 6, seed: int = 0, **more: object) -> Shards:
    return split(text, labels, len(labels), n, np.random.default_rng(seed), **more)  # type: ignore[arg-type]


def classes_of(shard: Iterable[int]) -> set[int]:
    return {int(LABELS[k]) for k in shard}


@given(st.sampled_from(EXAMPLES), st.integers(1, 12), st.integers(0, 9999))
def test_every_agent_has_a_sample_nobody_has_anothers_and_a_seed_is_a_split(
    text: str, n: int, seed: int
) -> None:
    if text == "classes:2":
        n = max(n, 5)
    shards = shards_of(text, n=n, seed=seed)
    held = np.concatenate([*shards])
    assert len(shards) == n
    assert min(map(len, shards)) > 0
    assert len(set(held.tolist())) == len(held)
    assert held.min() >= 0
    assert held.max() < len(LABELS)
    again = shards_of(text, n=n, seed=seed)
    assert all(map(np.array_equal, shards, again))


def test_all_rows_are_among_the_examples_or_have_tests_of_their_own() -> None:
    assert {text.partition(":")[0] for text in EXAMPLES} | {"copies", "natural", "flwr"} == PARTITIONS.keys()


def test_shorthands_and_iid_are_what_they_were() -> None:
    def rng() -> np.random.Generator:
        return np.random.default_rng(3)

    for text, wanted in (
        ("skew:0.5", by_label(LABELS, 6, 0.5, rng())),
        ("dirichlet:0.1", dirichlet(LABELS, 6, 0.1, rng())),
        ("iid", by_label(LABELS, 6, 0.0, rng())),
    ):
        assert np.array_equal(shards_of(text, seed=3), wanted)


@pytest.mark.parametrize(("n", "k"), [(5, 2), (6, 2), (10, 1), (4, 3), (30, 4), (3, 10)])
def test_classes_gives_each_agent_exactly_k_and_leaves_none_out(n: int, k: int) -> None:
    shards = shards_of(f"classes:{k}", n=n)
    assert [len(classes_of(shard)) for shard in shards] == [k] * n
    assert sorted(np.concatenate([*shards]).tolist()) == [*range(len(LABELS))]
    # The samples of a class are shared evenly by those that have it.
    for c in range(10):
        mine = [n for shard in shards if (n := sum(LABELS[k] == c for k in shard))]
        assert max(mine) - min(mine) <= 1


def test_shards_are_pieces_of_the_sorted_data() -> None:
    shards = shards_of("shards:2", n=10)
    assert {len(shard) for shard in shards} == {60}
    # 20 pieces of 30 samples; each class of 60 is two whole pieces.
    assert Counter(c for shard in shards for c in LABELS[shard].tolist()) == dict.fromkeys(range(10), 60)
    assert max(len(classes_of(shard)) for shard in shards) <= 2
    assert len({frozenset(classes_of(shard)) for shard in shards}) > 3, "they are dealt at random"


def test_quantity_has_the_moments_of_the_dirichlet_law_and_no_skew_of_labels() -> None:
    n, alpha = 5, 2.0
    sizes = np.array([[*map(len, shards_of(f"quantity:{alpha}", n=n, seed=s))] for s in range(2000)]) / 600
    mean, total = 1 / n, n * alpha
    assert np.allclose(sizes.sum(1), 1)
    assert np.allclose(sizes.mean(0), mean, atol=0.01)
    assert np.allclose(sizes.var(0), mean * (1 - mean) / (total + 1), rtol=0.1)
    large = max(shards_of("quantity:2", seed=1), key=len)
    assert len(classes_of(large)) == 10


def test_class_shares_have_the_moments_of_the_dirichlet_law() -> None:
    n, alpha = 4, 1.0
    one_class = np.zeros(1000, dtype=np.int64)
    shares = np.array([[*map(len, shards_of("class-shares:1", one_class, n, s))] for s in range(1500)]) / 1000
    assert np.allclose(shares.mean(0), 1 / n, atol=0.02)
    assert np.allclose(shares.var(0), (1 / n) * (1 - 1 / n) / (n * alpha + 1), rtol=0.12)
    assert len({len(shard) for shard in shards_of("class-shares:0.5")}) > 1


def test_with_copies_all_agents_minimise_the_same() -> None:
    assert [[*shard] for shard in shards_of("copies")] == [[*range(600)]] * 6
    common: dict[str, Any] = {"task": "digits", "topology": "complete", "agents": 4, "until": 60, "lr": 0.4}
    alike, sorted_ = (
        offbeat.simulate("asbcd", **common, partition=text, metrics="gradient_norm").curve.of("gradient_norm")
        for text in ("copies", "skew:1")
    )
    assert alike[-1] < 0.2 * alike[0] < sorted_[-1], "blocks of one f, or of one f_i each"


def test_what_has_the_same_value_stays_together() -> None:
    writer = np.array([f"writer {k % 17}" for k in range(600)])
    shards = shards_of("natural:writer", columns={"writer": writer})
    assert sorted(np.concatenate([*shards]).tolist()) == [*range(600)]
    held = [{*writer[shard].tolist()} for shard in shards]
    assert sum(map(len, held)) == 17
    assert max(map(len, held)) - min(map(len, held)) <= 1
    for count in (4, 601):
        with pytest.raises(SettingError, match=f"'writer' has {count} values, the data 600 samples"):
            shards_of("natural:writer", columns={"writer": [*range(count)]})
    each = shards_of("natural:writer", n=17, columns={"writer": writer})
    assert [{*writer[shard].tolist()} for shard in each] == [{name} for name in np.unique(writer)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clases:2", "Unknown partition 'clases'. Did you mean 'classes'?"),
        ("dirichlet", "Cannot read the partition 'dirichlet'; expected dirichlet:ALPHA"),
        ("dirichlet:x", "expected dirichlet:ALPHA"),
        ("dirichlet:-1", "alpha is -1"),
        ("quantity:0", "alpha is 0"),
        ("class-shares:nan", "alpha is nan"),
        ("classes:2.5", "expected classes:K"),
        ("classes:0", "Cannot give each agent 0 classes: there are 10"),
        ("classes:11", "expected 1 to 10"),
        ("classes:1", "6 agents with 1 classes each hold 6 of 10 at most"),
        ("shards:0", "expected 1 to 100"),
        ("shards:101", "expected 1 to 100"),
        ("iid:3", "expected nothing behind 'iid'"),
        ("natural:writer", "this task's data have no columns"),
        ("natural:", "expected natural:COLUMN"),
        ("flwr:a b", "expected flwr:NAME"),
        ("flwr:IidPartitioner(3)", "expected flwr:NAME"),
        ("flwr:__import__('os').system('ls')", "expected flwr:NAME"),
        ("quantity:1e-9", "had each of 6 agents a sample"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        shards_of(text)
    assert said in str(caught.value)


def test_targets_that_are_no_classes_are_not_split_by_class() -> None:
    with pytest.raises(SettingError, match="'skew:1' splits by class, and the targets are none"):
        split("skew:1", None, 60, 6, np.random.default_rng(0))
    assert len(split("quantity:1", None, 60, 6, np.random.default_rng(0))) == 6


@pytest.mark.parametrize("text", [t for t in EXAMPLES if t != "classes:2"])
@pytest.mark.parametrize(("total", "n"), [(4, 0), (4, -1), (4, 5)])
def test_no_number_of_agents_that_cannot_be(text: str, total: int, n: int) -> None:
    with pytest.raises(SettingError, match=r"Cannot (split|cut)"):
        shards_of(text, np.arange(total), n)


def test_a_partition_is_spelt_in_one_way() -> None:
    assert [spelt(text) for text in (" skew:0.50", "skew:1.0", "classes:02", "iid")] == [
        "skew:0.5", "skew:1", "classes:2", "iid",
    ]  # fmt: skip
    assert spelt("flwr:DirichletPartitioner( alpha = 0.10)") == "flwr:DirichletPartitioner(alpha=0.1)"


# -- the objective ---------------------------------------------------------------------------------


def small(objective: str, compiled: bool = True, equal: bool = False) -> Logistic:
    source = torch.Generator().manual_seed(1)
    x, y = torch.rand((24, 5), generator=source), torch.randint(3, (24,), generator=source)
    cuts = [8, 16] if equal else [2, 9]
    shards = np.split(np.random.default_rng(0).permutation(24), cuts)
    data = DataSet("small", x, y, x[:4], y[:4], 3)
    return Logistic(data, Minibatches(shards, 4), 0.01, compiled, objective)


def own_loss(t: Logistic, agent: int, model: torch.Tensor) -> torch.Tensor:
    """f_i, by torch alone."""
    shard = torch.from_numpy(t.minibatches.shards[agent])
    logits = t.data.train_x[shard].double() @ model[:-3].view(3, 5).T + model[-3:]
    penalty = (model.square() / (1 + model.square())).sum()
    return cross_entropy(logits, t.data.train_y[shard]) + t.reg * penalty


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("objective", ["agents", "samples"])
def test_the_mean_of_what_agents_take_gradients_of_is_the_loss_that_is_judged(
    objective: str, compiled: bool
) -> None:
    t = small(objective, compiled)
    sizes = np.array([len(shard) for shard in t.minibatches.shards])
    shares = np.full(3, 1 / 3) if objective == "agents" else sizes / sizes.sum()
    model = torch.randn(18, generator=torch.Generator().manual_seed(2))
    v = model.double().requires_grad_()
    f = sum(p * own_loss(t, i, v) for i, p in enumerate(shares.tolist()))
    assert isinstance(f, torch.Tensor)
    assert t.losses((model[None],))[0] == pytest.approx(f.item(), rel=1e-5)
    f.backward()  # type: ignore[no-untyped-call]
    # The gradient of each agent on all of its own samples; shorter ones are repeated to one length.
    each = [np.resize(shard, math.lcm(*sizes.tolist())) for shard in t.minibatches.shards]
    (g,) = t.gradients([0, 1, 2], each, (model.expand(3, -1).contiguous(),))
    assert v.grad is not None
    assert torch.allclose(g.double().mean(0), v.grad, atol=1e-5)


def test_with_equal_shards_the_objectives_are_one() -> None:
    a, b = small("agents", equal=True), small("samples", equal=True)
    model = torch.randn((1, 18), generator=torch.Generator().manual_seed(2))
    assert a.losses((model,)) == b.losses((model,))
    assert a.like(Logistic(a.data, b.minibatches, a.reg, objective="samples"))
    assert (a.native() is None) == (b.native() is None)
    found = weights("samples", np.arange(6).reshape(3, 2), 7)
    assert (found.agents, found.samples, found.shares) == (None, None, None)


@pytest.mark.parametrize("objective", ["agents", "samples"])
def test_all_executors_give_the_same_with_unequal_shards(objective: str) -> None:
    runs = [
        offbeat.simulate(
            "adsgd", task="digits", partition="quantity:0.5", objective=objective, until=30, agents=5,
            topology="ring", executor=executor,
        )
        for executor in ("levels", "batched", "event-by-event")
    ]  # fmt: skip
    assert len({run.digest for run in runs}) == 1
    assert runs[0].curve.loss == runs[2].curve.loss


def test_objectives_differ_where_shards_do() -> None:
    def run(**settings: Any) -> str:
        common: dict[str, Any] = {"task": "digits", "until": 20, "agents": 4, "topology": "ring"}
        return offbeat.simulate("adsgd", **common, **settings).digest

    assert run(partition="quantity:0.5") != run(partition="quantity:0.5", objective="samples")
    assert run(partition="dirichlet:0.5") == run(dirichlet=0.5)
    assert run(dirichlet=0.5) == run(dirichlet=0.5, objective="samples"), "equal shards"
    assert run() == run(partition="skew:1")


def test_settings_of_the_data_that_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"partition": "iid", "skew": 0.5}, "got both iid and skew:0.5"),
        ({"partition": "iid", "dirichlet": 0.5}, "got both iid and dirichlet:0.5"),
        ({"objective": "sample"}, "Unknown objective 'sample'. Did you mean 'samples'?"),
        ({"task": "quadratic", "objective": "samples"}, "A quadratic has no samples"),
        ({"partition": 3}, "'partition' must be text; got 3"),
    ]
    for settings, said in refused:
        with pytest.raises(SettingError) as caught:
            offbeat.compare("adsgd", **{"task": "digits", "until": 5, **settings})
        assert said in str(caught.value)


def test_a_task_of_ones_own_without_split_is_not_split() -> None:
    quadratic = offbeat.Quadratic(np.zeros((3, 2)), np.ones(3))
    with pytest.raises(SettingError, match="quadratic, which has no method `split`"):
        offbeat.simulate("adsgd", task=quadratic, until=2, topology="ring", partition="iid")


def test_build_splits_by_the_seed() -> None:
    one, two = (build("digits", 4, seed, partition="quantity:1") for seed in (0, 1))
    assert isinstance(one, Logistic)
    assert isinstance(two, Logistic)
    assert [*map(len, one.minibatches.shards)] != [*map(len, two.minibatches.shards)]
