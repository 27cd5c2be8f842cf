"""The command line of runs that go on: join, leave."""

from pathlib import Path

import typer

from offbeat.cli.console import say
from offbeat.cli.options import numbers, option
from offbeat.engines.live.launcher.requests import Request, ask
from offbeat.engines.live.shm.board import ROOM

RUN = (
    "The results folder (--out) of an 'offbeat launch' that goes on; of a run on several machines, on any of "
    "them, also the name that its launcher said."
)
MANY = f"How many; a run takes up to {ROOM} more than it began with."
WHOM = "Whom each of them hears and is heard by, '0,3'; default: by the graph's own rule."
WHO = "The agent that is to leave."


def join(
    run: Path = typer.Argument(help=RUN),
    agents: int = option(1, None, MANY, min=1),
    neighbours: str | None = option(None, None, WHOM),
) -> None:
    """Let new agents into a run while it goes on.

    Each is another process of the same script. It starts with a neighbour's newest model, and from then on
    mixes, and is mixed, as the others; weights are made anew. Graphs whose larger ones hold the smaller grow
    as they are called (complete, star, chain, binary-tree); in others a newcomer is joined to as many as
    agents had on average, those with fewest. It takes its share of the data with the others' next epochs.

    The command waits until they have joined, and says with whom. It is refused, and the run goes on, for
    algorithms that take nobody back ('offbeat list algorithms'), and if the new agents' script fails.

    Examples:

      offbeat join offbeat-runs/train-0

      offbeat join offbeat-runs/train-0 --agents 2 --neighbours 0,3
    """
    expected = "numbers with commas between: '0,3'"
    whom = None if neighbours is None else numbers(int, neighbours, f"the agents '{neighbours}'", expected)
    say(ask(run, Request("join", agents, None if whom is None else tuple(whom))))


def leave(
    run: Path = typer.Argument(help=RUN), agent: int = option(..., None, WHO, "--agent", min=0)
) -> None:
    """Have one agent save and leave a run, which goes on without it.

    Its loops over agent.shard and agent.epochs end with the next step, and what follows them is run. It is
    not started again, its share of the data goes to the others with their next epochs, and its weight to each
    neighbour's own model. --resume starts it again with all others.

    The command waits until it has left. It is refused for the last agent, for one without which the others
    stand still, as a parameter server, and for one without which the others would be in two parts.

    Example:

      offbeat leave offbeat-runs/train-0 --agent 3
    """
    say(ask(run, Request("leave", agent=agent)))
