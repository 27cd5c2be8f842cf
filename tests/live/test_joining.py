"""Agents that join a run while it goes on, and agents that are asked to leave it."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path

import pytest
from warm import Started, finished, needs_shared_memory, start, until

from offbeat.algorithms import ALGORITHMS
from offbeat.core.errors import DataError, SettingError
from offbeat.engines.events import Regrouped, Rejoined, Resumed, ViewChanged, rows_of
from offbeat.engines.live.launcher.requests import Request, ask
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.shm.board import MOST, ROOM, Board, Row
from offbeat.engines.trace import Trace
from offbeat.experiments.predicting import predict
from offbeat.experiments.replaying import replayed
from offbeat.training.export import export
from offbeat.world.growth import Growing, Newcomer
from offbeat.world.topology import build

pytestmark = needs_shared_memory


def test_a_board_has_room_and_whoever_meets_a_newcomer_sees_its_row(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", 2)
    assert (board.n, board.capacity) == (2, 2 + ROOM)
    here = Transport(tmp_path, board, 0, 1, 8)
    seen = Board.attach(tmp_path / "board")
    seen.row(2)[Row.MAILBOXES] = 1  # ready, and not let in yet
    assert board.rows.shape[0] == 2 and len(here.boxes) == 2
    board.grow(3)
    assert seen.rows[:, Row.MAILBOXES].tolist() == [0, 0, 1]
    assert [*here.receive()] == [], "its box is looked for once it is known"
    here.meet(2, 1)
    assert here.boxes == [0, 0, 0] and [*here.receive()] == [] and here.boxes == [0, 0, 1]
    assert Board.create(tmp_path / "most", MOST).capacity == MOST
    board.words[1] = board.capacity + 1
    with pytest.raises(DataError, match="it is of 67 agents, and has 66 rows"):
        Board.attach(tmp_path / "board")


SCRIPT = """
import sys, time
from pathlib import Path
import torch
import offbeat

agent = offbeat.join()
if agent.rank >= int(sys.argv[1]):
    raise ValueError("no room for me")
torch.manual_seed(0)
x = torch.randn(42, 4)
model = torch.nn.Linear(4, 1)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.05))
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
agent.save_also(scheduler=scheduler)
data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
loader = torch.utils.data.DataLoader(data, batch_size=1, shuffle=True)
for epoch in agent.epochs(10**6):
    seen = []
    for a, b in agent.shard(loader):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(a), b)
        loss.backward()
        optimizer.step()
        agent.log(loss=loss)
        seen.append(int((x == a).all(1).nonzero()))
        time.sleep(0.002)
    print(f"epoch {epoch} of {agent.world}:", *seen)
    print(f"rate {optimizer.param_groups[0]['lr'] / 0.05:.4f} after {scheduler.last_epoch} of {epoch}")
    scheduler.step()
    Path(f"epoch-{agent.rank}-{agent.world}").touch()
    Path(f"{epoch}-of-{agent.world}-{agent.rank}").touch()
    if Path("done").exists():
        break
print("over")
"""
"""Runs until a file is there. Agents from a given rank on fail. Of each epoch it says what it has seen."""


def asked(folder: Path, name: str, *arguments: str) -> Started:
    """A command beside the run, in a folder of its own."""
    (folder / name).mkdir()
    return start(folder / name, *arguments)


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts a run, which is killed if a test fails before its end."""
    runs: list[Started] = []

    def begin(*words: str) -> Started:
        runs.append(start(tmp_path, *words, "train.py", "6", script=SCRIPT))
        return runs[-1]

    yield begin
    for run in runs:
        if run.poll() is None:
            run.kill()


def test_agents_join_and_leave_and_the_run_is_replayed_and_resumed(
    tmp_path: Path, begun: Callable[..., Started]
) -> None:
    out, command = tmp_path / "out", ["launch", "-n", "4", "--out", "out", "--checkpoint-every", "20"]
    run = begun(*command)
    until(lambda: (tmp_path / "epoch-3-4").exists())
    (shared,) = run.shared
    (shared / "ask.broken").write_text('{"what": "join", "agen')
    (shared / "ask.1").mkdir()
    both = [asked(tmp_path, f"join-{k}", "join", "../out") for k in range(2)]
    assert [each.wait() for each in both] == [0, 0], [each.complained for each in both]
    said = sorted(each.said for each in both)
    assert re.fullmatch(r"Agent 4 joined after [\d.]+ s, its neighbours are 0, 2\.\n", said[0])
    assert re.fullmatch(r"Agent 5 joined after [\d.]+ s, its neighbours are 1, 3\.\n", said[1])
    assert '"done": false' in (shared / "answer.broken").read_text()
    assert not [*shared.glob("ask.*")]
    until(lambda: shared_by_six(tmp_path))
    refused = asked(tmp_path, "failing", "join", "../out", "--neighbours", "0,1")
    leaver = asked(tmp_path, "leave", "leave", "../out", "--agent", "1")
    assert leaver.wait() == 0, leaver.complained
    assert re.fullmatch(r"Agent 1 left after its step \d+; the others go on\.\n", leaver.said)
    assert refused.wait() == 2
    assert "new agent 6 failed before it could join" in refused.complained
    assert "no room for me" in refused.complained
    alone = asked(tmp_path, "again", "leave", "../out", "--agent", "1")
    assert alone.wait() == 2 and "Agent 1 takes no part any more" in alone.complained
    (tmp_path / "done").touch()
    assert run.wait() == 0, run.said + run.complained
    over = asked(tmp_path, "over", "join", "../out")
    assert over.wait() == 2 and "has ended: nobody can join" in over.complained

    trace = Trace.load(out)
    assert trace.agents == 6 and trace.settings["grown"] == [[[0, 2], [0, 2]], [[1, 3], [1, 3]]]
    assert trace.settings["left"][0].startswith("agent 1 at ")
    assert replayed(trace, out).same
    mixed_by = trace.writes["agent"][trace.mixed["write"][trace.mixed["source"] == 4]]
    assert {*mixed_by.tolist()} == {0, 2}, "the newcomer's model is mixed by its neighbours"
    came = rows_of(trace.events, Rejoined)
    assert came["agent"].tolist() == [4, 5] and {*came["donor"].tolist()} <= {0, 1, 2, 3}
    told = rows_of(trace.events, ViewChanged)
    assert {*told["agent"][told["peer"] == 4].tolist()} >= {0, 1, 2, 3}, "everybody is told"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["agent"] == 5 and {line["agent"] for line in lines} == {*range(6)}
    assert max(line["loss"] for line in lines[-6:]) < 0.01, "and the loss goes on falling"
    check_shares(run.said)
    taken = re.findall(r"\[([45])\] .* 'scheduler' is as in the checkpoint of agent (\d), of step", run.said)
    assert [*map(int, dict(taken))] in ([4, 5], [5, 4]) and {donor for _, donor in taken} <= {*"0123"}
    for rate, after, epoch in re.findall(r"\[[45]\] rate ([\d.]+) after (\d+) of (\d+)", run.said):
        assert rate == f"{0.99 ** int(after):.4f}" and 0 <= int(epoch) - int(after) <= 4, run.said
    assert len(export(out).sources) == 6
    with pytest.raises(SettingError, match="2 agents joined this run while it went on"):
        predict(trace)

    done = finished(tmp_path, *command, "--resume", "train.py", "6")
    assert done.code == 0, done.said + done.complained
    whole = Trace.load(out)
    assert {*rows_of(whole.events, Resumed)["agent"].tolist()} == {*range(6)}
    assert whole.settings["grown"] == trace.settings["grown"] and replayed(whole, out).same


def shared_by_six(folder: Path) -> bool:
    """Whether there is an epoch that six agents began, and ended, as six."""
    ended = [int(path.name.partition("-")[0]) for path in folder.glob("*-of-6-0")]
    both = [
        all((folder / f"{e}-of-6-{i}").exists() for i in range(6)) for e in range(max(ended, default=0) + 1)
    ]
    return any(before and now for before, now in pairwise(both))


def check_shares(said: str) -> None:
    """In an epoch that all begin with as many others, nobody sees what another sees."""
    epochs: dict[tuple[int, int], list[list[int]]] = {}
    for line in said.splitlines():
        if match := re.fullmatch(r"\[\d+\] epoch (\d+) of (\d+): ([\d ]+)", line):
            epochs.setdefault((int(match[1]), int(match[2])), []).append([*map(int, match[3].split())])
    sizes = {len(seen) for (_, world), each in epochs.items() for seen in each if world == 4}
    assert 42 // 4 in sizes
    full = [each for (_, world), each in epochs.items() if world == 6 and len(each) == 6]
    whole = [sorted(chain.from_iterable(each)) for each in full]
    assert [*range(42)] in whole, "six shares of seven samples"


def test_a_run_goes_on_with_other_agents_and_on_another_graph(tmp_path: Path) -> None:
    """A new agent, then one fewer than at first; R-FAST, whose books with each neighbour are closed."""
    out, command = tmp_path / "out", ["launch", "--algorithm", "rfast", "--checkpoint-every", "9"]
    (tmp_path / "done").touch()  # an epoch in each stage
    run = finished(tmp_path, *command, "-n", "3", "--out", "out", "train.py", "9", script=SCRIPT)
    assert run.code == 0, run.said + run.complained
    more = ["--resume", "--out", "out"]
    larger = finished(tmp_path, *command, "-n", "4", "--topology", "complete", *more, "train.py", "9")
    assert larger.code == 0, larger.said + larger.complained
    assert "had 3 agents on ring; it goes on with 4 agents on complete. From their own" in larger.complained
    assert "New: agent 3, from the checkpoint of agent 0, of step 14." in larger.complained
    assert (
        "stays the share of 3 that it was; from its next one on it takes its share of 4" in larger.complained
    )
    shares = re.findall(r"\] epoch 1 of 4: ([\d ]+)", larger.said)
    seen = [*map(int, " ".join(shares).split())]
    assert larger.said.count("] rate 0.9900 after 1 of 1") == 4, "the newcomer's scheduler is the donor's"
    assert len(shares) == 4 and len({*seen}) == len(seen) == 4 * (42 // 4)
    smaller = finished(tmp_path, *command, "-n", "2", *more, "train.py", "9")
    assert smaller.code == 0, smaller.said + smaller.complained
    assert "with 2 agents on complete" in smaller.complained
    assert "No longer: agents 2, 3;" in smaller.complained
    trace = Trace.load(out)
    assert trace.agents == 4 and [each["agents"] for each in trace.settings["earlier"]] == [3, 4]
    assert rows_of(trace.events, Regrouped)["agent"].tolist().count(0) == 2
    assert rows_of(trace.events, Rejoined)[["agent", "donor", "version"]].tolist() == [(3, 0, 14)]
    assert replayed(trace, out).same
    assert [source.agent for source in export(out).sources] == [0, 1]
    with pytest.raises(SettingError, match="went on from its checkpoints with other agents"):
        predict(trace)
    refused = finished(tmp_path, "launch", "--algorithm", "allreduce", "-n", "3", *more, "train.py", "9")
    assert refused.code == 2
    assert "allreduce cannot go on without any one of its agents" in refused.complained
    assert "Expected -n 2 --topology complete, as before" in refused.complained


def test_which_algorithms_take_newcomers() -> None:
    closed = {name for name, row in ALGORITHMS.items() if row.closed}
    assert closed == {
        "dsgt", "d2", "kungurtsev", "allreduce", "diloco", "noloco", "amelie", "spsgd", "ringleader", "asbcd",
    }  # fmt: skip
    chain, easgd = Growing(build("chain", 3)), ALGORITHMS["easgd"]
    longer = chain.after([Newcomer((2,), (2,))])
    with pytest.raises(SettingError, match=r"Agent 1 is the server; .* it would be agent 0"):
        easgd.check_newcomers(chain.first, longer)
    easgd.check_newcomers(chain.first, chain.after([Newcomer((1,), (1,))]))
    with pytest.raises(SettingError, match="Nobody can join this run: dsgt takes nobody back"):
        ALGORITHMS["dsgt"].check_newcomers(chain.first, longer)


def test_runs_of_others_and_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Request("leave", agent=0)
    with pytest.raises(SettingError, match="No run goes on in"):
        ask(tmp_path, wanted)
    with pytest.raises(SettingError, match="There is no folder"):
        ask(tmp_path / "nowhere", wanted)
    monkeypatch.setattr("os.getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(SettingError, match="belongs to"):
        ask(tmp_path, wanted)
