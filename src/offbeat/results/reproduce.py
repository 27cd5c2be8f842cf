"""How to run it again: the last part of the page."""

import platform
import re
import shlex
from collections import Counter
from math import nan

import numpy as np
import torch

from offbeat.algorithms import ALGORITHMS
from offbeat.core.settings import as_word
from offbeat.results.markup import escaped, linked, table, time_text
from offbeat.results.table import lost_again
from offbeat.results.tuned import how_tuned, tried, tuned
from offbeat.results.values import VERSION, ComparisonValues, RunValues


def again(comparison: ComparisonValues) -> list[str]:
    """How to make the runs again: the command line, every setting, every digest."""
    line, missing = command(comparison)
    how = "<pre><code>" + re.sub(r"(?<= )--[a-z-]+", r"<span>\g<0></span>", escaped(line)) + "</code></pre>"
    if missing:
        how = (
            f"<p>The command line has no words for {escaped(' and '.join(missing))}. From Python, "
            "<code>offbeat.compare</code> runs this again, with the objects that were given to it and the "
            "settings below.</p>"
        )
    settings = [[escaped(name), escaped(_text(value))] for name, value in _common(comparison).items()]
    papers = []
    for name in dict.fromkeys(run.algorithm for run in comparison.runs):
        row = ALGORITHMS.get(_base(name))
        said = (
            f"{row.title}; {row.paper}. An agent waits for {row.waits_for}."
            if row
            else "not one of offbeat’s own."
        )
        papers.append(f"<li><b>{escaped(name)}</b>: {linked(said)}</li>")
    return [
        how,
        f"<p>Made with offbeat {escaped(VERSION)}, Python {platform.python_version()}, "
        f"PyTorch {escaped(torch.__version__)} and NumPy {escaped(np.__version__)}.</p>",
        "<h3>Settings</h3>", table(["name", "value"], settings, "settings"),
        *_tuning(comparison),
        "<h3>Runs</h3>", *_runs(comparison),
        "<h3>Algorithms</h3>", f"<ul>{''.join(papers)}</ul>",
    ]  # fmt: skip


def _runs(comparison: ComparisonValues) -> list[str]:
    rows = [
        [escaped(run.algorithm), f"{run.lr:g}", str(run.seed), _ended(run), f"{run.updates:,}",
         f'<code title="{escaped(run.digest)}">{escaped(run.digest[:16])}</code>']
        for run in comparison.runs
    ]  # fmt: skip
    return [
        "<p>The digest is the SHA-256 of the whole trace and the final models; here are its first 16 "
        "digits.</p>",
        table(["algorithm", "lr", "seed", "time to target", "updates", "digest"], rows, "runs"),
    ]


def _ended(run: RunValues) -> str:
    return time_text(run.time_to_target) + ", then diverged" * lost_again(run)


def _tuning(comparison: ComparisonValues) -> list[str]:
    """What every learning rate gave that was tried, where they were tuned."""
    heads, rows = tried(comparison)
    if not rows:
        return []
    about = "".join(f"<p>{escaped(said)}</p>" for said in how_tuned(comparison))
    cells = [[escaped(cell) for cell in row] for row in rows]
    return ["<h3>Tuning</h3>", about, table([escaped(head) for head in heads], cells, "tuning")]


def _base(algorithm: str) -> str:
    return algorithm.partition(":")[0]


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(as_word, value)) or "none"
    return "none" if value is None else as_word(value)


def _common(comparison: ComparisonValues) -> dict[str, object]:
    """All settings but the algorithms and their learning rates; of the straggler all, where every seed has
    its own.
    """
    runs = comparison.runs
    found: dict[str, object] = {}
    for name in runs[0].settings:
        values = list(dict.fromkeys(run.settings["straggler"] for run in runs)) if name == "straggler" else []
        found[name] = values if len(values) > 1 else runs[0].settings[name]
    seeds = sorted({run.seed for run in runs})
    return {k: v for k, v in found.items() if k not in ("algorithm", "lr", "seed", "own")} | {
        "seeds": ", ".join(map(str, seeds))
    }


def command(comparison: ComparisonValues) -> tuple[str, list[str]]:
    """The command line that makes these runs again, and what it has no words for."""
    lrs, tuned_how = _lrs(comparison), _tuned(comparison)
    first, seeds = comparison.runs[0].settings, sorted({run.seed for run in comparison.runs})
    missing = list(dict.fromkeys(thing for run in comparison.runs for thing in run.settings["own"]))
    missing += ["such a choice of learning rates"] * (lrs is None or tuned_how is None)
    every_own = isinstance(_common(comparison)["straggler"], list)  # the centre of every seed's graph
    live = "unit" in first
    task, *others = (first | ({"straggler": None} if every_own else {})).words(live)
    options = [
        task,
        ("algorithms", ",".join(dict.fromkeys(run.algorithm for run in comparison.runs))),
        *others,
    ]
    options += [("lr", lr) for lr in lrs or []]
    options += [("fault", fault) for fault in first.get("faults", [])]
    options += [
        (f"tune-{name}", as_word(value)) for name, value in (tuned_how or {}).items() if value is not None
    ]
    options += [("unit", f"{1000 * first['unit']:g}ms")] if live else []
    options += [("seed", str(seeds[0]))] + [("seeds", str(seeds[-1] - seeds[0] + 1))] * (not live)
    words = [f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in options]
    return " ".join(["offbeat live" if live else "offbeat compare", *words]), missing


def _tuned(comparison: ComparisonValues) -> dict[str, object] | None:
    """How learning rates were tuned, as options; None if several ways were used."""
    ways = {(one.by, one.grid, len(one.seeds)) for _, one in tuned(comparison).values()}
    if len(ways) > 1:
        return None
    by, grid, count = next(iter(ways), (None, (), None))
    return {"by": by, "grid": ",".join(map(as_word, grid)) or None, "seeds": count}


def _lrs(comparison: ComparisonValues) -> list[str] | None:
    """The values of --lr: one for all, or several, or "tuned", and then those of single algorithms."""
    asked: dict[str, tuple[float, ...] | str] = {}
    own: dict[str, float] = {}
    for (name, lr), runs in comparison.groups().items():
        row = ALGORITHMS.get(_base(name))
        scale = runs[0].topology.n if row is not None and row.scale_lr_by_n else 1
        bases = (float(f"{lr / scale:.12g}"), lr / scale)
        base_lr = next((x for x in bases if x * scale == lr), nan)  # nan: only its own
        before = asked.get(name, ())
        asked[name] = "tuned" if runs[0].tuning is not None or isinstance(before, str) else (*before, base_lr)
        own[name] = lr
    many = [rates for rates in asked.values() if len(rates) > 1]
    common = many[0] if many else Counter(asked.values()).most_common(1)[0][0]
    base = common if isinstance(common, str) else ",".join(map(as_word, common))
    others = [name for name, rates in asked.items() if rates != common or "nan" in base]
    if any(len(asked[name]) > 1 for name in others):
        return None
    return [base] * ("nan" not in base) + [f"{name}={as_word(own[name])}" for name in others]
