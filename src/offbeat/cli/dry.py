"""What would be run, said without running anything: `--dry-run` of compare and of sweep."""

from collections.abc import Callable, Sequence
from pathlib import Path

from offbeat.cli.console import say
from offbeat.cli.options import option
from offbeat.core.settings import RUNNING
from offbeat.experiments.study import Study

SHOWN = 10  # lines of a list

DRY_RUN = option(False, RUNNING, "Check everything, say what would be run, and run nothing.", "--dry-run")


def announce(total: int, done: int, missing: Sequence[str]) -> None:
    """Say how many runs there are, and which are missing; with tuning, others follow from these."""
    more = total - done - len(missing)
    if more and missing:
        follow = "which others follow, their results decide"
        say(f"At most {total:,} runs: {done:,} done, {len(missing):,} to do first; {follow}.")
    else:
        say(f"{total - more:,} runs: {done:,} done, {len(missing):,} to do.")
    listed(say, [f"  {name}" for name in missing], "  and {:,} more")


def describe(plan: Study) -> None:
    """Say what is compared: worlds, algorithms with their learning rates, seeds, and how rates are tuned."""
    first = plan.plans[0]
    if plan.over:
        rest = ", ..." * (len(plan.worlds) > SHOWN)
        say(f"{len(plan.worlds):,} worlds: {'; '.join(plan.worlds[:SHOWN])}{rest}")
    for place, spec in enumerate(first.specs):
        lrs = first.lrs[place]
        if lrs is not None:
            rates = f"learning rate {', '.join(f'{lr:g}' for lr in lrs)}"
        elif first.ladders[place] is not None:
            rates = f"tuned: {first.ladders[place]}"
        else:
            tried = ", ".join(f"{trial.lr:g}" for trial in first.search(place).first)
            rates = f"learning rate tuned: first {tried}, with {first.tune.seeds} seeds each"
        say(f"{spec.name}: {rates}")
    seeds = [setup.seed for setup in first.setups]
    say(f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}")


def say_ahead(plan: Study, keep_traces: bool, out: Path | None, remarks: Sequence[str]) -> None:
    """Of a comparison."""
    done, missing = plan.ahead(keep_traces, out)
    describe(plan)
    for text in remarks:
        say(text)
    announce(plan.count, done, missing)


def listed(show: Callable[[str], None], lines: Sequence[str], rest: str) -> None:
    """The first of these lines, and how many more there are."""
    for line in lines[:SHOWN]:
        show(line)
    if len(lines) > SHOWN:
        show(rest.format(len(lines) - SHOWN))
