"""`--stop-after`: a run ends for all at once, once there is enough of all of its agents together."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from one_agent import Join
from warm import finished, needs_shared_memory

from offbeat.core.errors import SettingError
from offbeat.engines.live.launcher.stop_after import LATE, StopAfter, last_step
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.shm.board import Board, Row
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed

SCRIPT = """
import time
import torch
import offbeat

torch.manual_seed(3)
model = torch.nn.Linear(4, 2)
agent = offbeat.join()
optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
data = torch.utils.data.TensorDataset(torch.randn(60, 4), torch.randn(60, 2))
loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
for epoch in agent.epochs(10**6):
    for x, y in agent.shard(loader):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        time.sleep(0.004 * (1 + 4 * (agent.rank == 0)))
print(f"then {agent.steps} steps of {sum(len(x) for x, _ in loader)} samples")
"""
"""Five batches an epoch; agent 0 is five times slower; what follows the loops is run."""


@pytest.mark.parametrize(
    ("text", "what", "amount"),
    [
        ("20000", "steps", 20000), ("90s", "seconds", 90), ("30min", "seconds", 1800),
        ("2h", "seconds", 7200), ("3epochs", "epochs", 3), ("1epoch", "epochs", 1), ("loss:0.2", "loss", 0.2),
    ],
)  # fmt: skip
def test_every_form_is_read(text: str, what: str, amount: float) -> None:
    rule = StopAfter.parse(text)
    assert (rule.what, rule.amount, StopAfter.parse(rule.text)) == (what, amount, rule)


@pytest.mark.parametrize(
    "text", ["", "2 days", "loss:", "loss:2h", "1.5", "0", "-3", "1" * 400, "epochs", "inf"]
)
def test_anything_else_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(SettingError, match="--stop-after"):
        StopAfter.parse(text)


def test_it_counts_over_all_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**9]
    monkeypatch.setattr("time.monotonic_ns", lambda: now[0])
    board = Board.create(tmp_path / "board", 3)
    board.begin(elapsed=100.0)

    def reached(text: str, *missing: int) -> bool:
        return StopAfter.parse(text).reached(board, missing)

    assert reached("100s") and not reached("101s"), "the seconds of former lives count"
    board.rows[:, Row.STEPS] = 10, 20, 30
    assert reached("60") and not reached("61")
    assert not reached("loss:9") and "no agent has logged a loss" in StopAfter.parse("loss:9").lacking(board)
    board.numbers[:2, Row.LOSS] = 0.5, 0.25
    assert not reached("loss:0.4"), "one has logged none yet"
    assert reached("loss:0.4", 2) and not StopAfter.parse("loss:9").lacking(board)
    board.numbers[2, Row.LOSS] = 0.75
    assert reached("loss:0.5") and not reached("loss:0.49")
    board.numbers[:, Row.EPOCHS] = 0.5, 1.5, 4.0
    assert reached("2epochs") and not reached("2.01epochs"), "the mean of shares is what was seen of the data"
    board.numbers[:2, Row.DEALT] = 1.25, 0.5
    assert reached("1.75epochs") and not reached("1.8epochs"), "of dealt batches those of all are counted"
    began, board.words[4] = board.zero, 0
    assert not reached("1s") and not reached("1"), "who has attached does not know yet when the run began"
    board.words[4] = began
    now[0] -= 90 * 10**9
    assert last_step(board) == 30 + 2 + np.ceil(LATE * 30 / 10), "nobody has got there before it is known"


def test_the_loops_end_after_the_last_step_and_no_other_is_made(in_a_run: Join) -> None:
    agent, model = in_a_run(), torch.nn.Linear(1, 1)
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert agent._driver is not None and agent._driver.transport is not None
    board, loader, other = agent._driver.transport.board, [torch.ones(1)] * 4, [1, 2, 3]

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    seen = list[int]()
    for epoch in agent.epochs(5):
        for x in agent.shard(loader):
            step(x)
            seen.append(epoch)
            if len(seen) == 6:
                assert board.numbers[0, Row.EPOCHS] == 1.5
                board.finish(0)
                step(x)
                step(x)  # for the same batch: another optimizer's, say
        assert [*agent.shard(other)] == other, "what evaluates is no loop that trains"
    assert seen == [0] * 4 + [1] * 2, "the batch after which it was known is the last"
    assert [*agent.epochs(3)] == []
    with pytest.raises(SystemExit) as ended:
        step(torch.ones(1))
    assert not ended.value.code and agent.steps == 8


@needs_shared_memory
def test_nobody_trains_alone_at_the_end_and_a_run_goes_on_to_more(tmp_path: Path) -> None:
    words = ["launch", "-n", "3", "--out", "out", "--stop-after"]
    first = finished(tmp_path, *words, "3epochs", "train.py", script=SCRIPT)
    assert first.code == 0, first.complained
    assert "The run ended (--stop-after 3epochs)." in first.complained
    steps = [int(n) for n in re.findall(r"then (\d+) steps of 60 samples", first.said)]
    assert len(steps) == 3 and sum(steps) >= 3 * 15, "three times all of the data, by all together"
    assert max(steps) > 2 * min(steps), "each at its own speed"
    saved = [checkpoint.latest(tmp_path / "out" / "checkpoints" / f"agent-{i}")[0] for i in range(3)]
    assert sorted(saved) == sorted(steps), "all is saved"
    more = sum(steps) + 30
    again = finished(tmp_path, *words, str(more), "--resume", "train.py")
    assert again.code == 0, again.complained
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    assert more <= trace.updates().sum() < 2 * more and replayed(trace).same


@needs_shared_memory
def test_where_all_wait_for_each_other_all_end_after_the_same_step(tmp_path: Path) -> None:
    done = finished(
        tmp_path,
        *["launch", "-n", "3", "--algorithm", "allreduce", "--stop-after", "30", "train.py"],
        script=SCRIPT,
    )
    assert done.code == 0, done.complained
    steps = re.findall(r"then (\d+) steps of 60 samples", done.said)
    assert len(steps) == 3 and len({*steps}) == 1 and int(steps[0]) >= 10, "and what follows the loop is run"
