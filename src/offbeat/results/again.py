"""How to run it again: the command line of a comparison, and with it on the page all settings and runs."""

import platform
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import chain, product
from math import nan

import numpy as np
import torch

from offbeat.algorithms import find, row_of
from offbeat.core.rates import Rate
from offbeat.core.settings import as_word
from offbeat.results.differences import World, asked_for
from offbeat.results.markup import escaped, linked, table
from offbeat.results.trials import Halving
from offbeat.results.tuned import algorithm_asked, how_tuned, lr_tuned, tried, tuned
from offbeat.results.values import VERSION, ComparisonValues, stragglers, time_text
from offbeat.results.wording import lost_again

Options = list[tuple[str, str]]

COMMANDS = 12  # lines that run it again, at most: one for each world


def again(comparison: ComparisonValues, band: str = "range") -> list[str]:
    """How to run it again. band: what was shown of seeds, see `offbeat.results.summary.BANDS`."""
    commands, missing = commands_of(comparison, band)
    lines = "\n".join(map(escaped, commands[:COMMANDS]))
    lines += f"\n# and {len(commands) - COMMANDS} more" if len(commands) > COMMANDS else ""
    how = "<pre><code>" + re.sub(r"(?<= )--[a-z-]+", r"<span>\g<0></span>", lines) + "</code></pre>"
    if missing:
        how = f"<p>The command line has no words for {escaped(' and '.join(missing))}. From Python, "
        how += "<code>offbeat.compare</code> runs this again, with the objects that were given to it and the "
        how += "settings below.</p>"
    papers = []
    for name in dict.fromkeys(run.algorithm for run in comparison.runs):
        said = "not one of offbeat’s own."
        if row := row_of(name):
            said = f"{row.title}; {row.paper}. An agent waits for {row.waits_for}."
        papers.append(f"<li><b>{escaped(name)}</b>: {linked(said)}</li>")
    settings = [[name, _text(value)] for name, value in _common(comparison).items()]
    heads, rates = tried(comparison)
    tuning = ["<h3>Tuning</h3>", *(f"<p>{escaped(said)}</p>" for said in how_tuned(comparison))]
    rows = []
    timed = any(run.target is not None for run in comparison.runs)
    for run in comparison.runs:
        met = [time_text(run.time_to_target) + ", then diverged" * lost_again(run)] * timed
        rows.append([run.algorithm, f"{run.lr:g}", str(run.seed), *met, f"{run.updates:,}", run.digest])
    heads_of_runs = ["algorithm", "lr", "seed", *["time to target"] * timed, "updates", "digest"]
    runs = table(heads_of_runs, rows, "runs")
    about = "The digest is the SHA-256 of the whole trace and the final models; here are its first 16 digits."
    short = re.sub(r"(?<=>)([0-9a-f]{16})[0-9a-f]{48}(?=<)", r'<code title="\g<0>">\1</code>', runs)
    return [
        how,
        f"<p>Made with offbeat {escaped(VERSION)}, Python {platform.python_version()}, "
        f"PyTorch {escaped(torch.__version__)} and NumPy {escaped(np.__version__)}.</p>",
        "<h3>Settings</h3>", table(["name", "value"], settings, "settings"),
        *([*tuning, table(heads, rates, "tuning")] if rates else []),
        "<h3>Runs</h3>", f"<p>{about}</p>", short,
        "<h3>Algorithms</h3>", f"<ul>{''.join(papers)}</ul>",
    ]  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, dict):
        return _text([f"{name} {each}" for name, each in value.items()])
    if isinstance(value, list | tuple):
        return "; ".join(map(as_word, value)) or "none"
    return "none" if value is None else as_word(value)


def _common(comparison: ComparisonValues) -> dict[str, object]:
    """All settings but the algorithms and their learning rates; all stragglers, where seeds have own ones."""
    runs = comparison.runs
    told = ("algorithm", "lr", "lr_said", "seed", "own")
    found = {name: value for name, value in asked_for(runs[0].settings).items() if name not in told}
    found["code"] = {k: v for run in runs for k, v in (run.settings.get("code") or {}).items()}
    if len(slow := list(dict.fromkeys(",".join(map(str, stragglers(run.settings))) for run in runs))) > 1:
        found["straggler"] = slow
    found |= comparison.differing
    return found | {"seeds": ", ".join(map(str, sorted({run.seed for run in runs})))}


def commands_of(comparison: ComparisonValues, band: str = "range") -> tuple[list[str], list[str]]:
    """The command lines that make these runs again, and what they have no words for.

    One, with --over, where the worlds are all combinations of some settings; else one for each world.
    """
    worlds = {tuple(world): _options(part, band) for world, part in comparison.split().items()}
    missing = list(dict.fromkeys(thing for _, things in worlds.values() for thing in things))
    live = "unit" in comparison.runs[0].settings
    several = [options for options, _ in worlds.values()]
    options = _over(comparison, [*worlds], several) if len(several) > 1 and not live else None
    return [_line(each, live) for each in (several if options is None else [options])], missing


def _over(
    comparison: ComparisonValues, worlds: Sequence[World], several: Sequence[Options]
) -> Options | None:
    """The options of all worlds as those of one command; None where there is none."""
    axes, known = comparison.differing, comparison.runs[0].settings.declared()
    kinds = {each.name: each.kind for each in known}
    rest = [[pair for pair in options if pair[0] not in axes] for options in several]
    every = set(product(*axes.values()))
    if not axes.keys() <= kinds.keys() or {tuple(v for _, v in world) for world in worlds} != every:
        return None
    if any(each != rest[0] for each in rest):
        return None
    over = []
    for name, values in axes.items():
        words = [kinds[name].words(value) if value is not None else [] for value in values]
        if any(len(each) != 1 for each in words):
            return None  # a value that is none, or several
        texts = [text for (text,) in words]
        between = ";" if any("," in text for text in texts) else ","
        over.append(("over", f"{name}={between.join(texts)}{';' * (between == ';' and len(texts) == 1)}"))
    return [*rest[0], *over]


def command(comparison: ComparisonValues, band: str = "range") -> tuple[str, list[str]]:
    """The command line that makes these runs, of one world, again, and what it has no words for."""
    options, missing = _options(comparison, band)
    return _line(options, "unit" in comparison.runs[0].settings), missing


def _line(options: Options, live: bool) -> str:
    words = [[f"--{name.replace('_', '-')}", *[shlex.quote(value)] * bool(value)] for name, value in options]
    return " ".join(["offbeat live" if live else "offbeat compare", *chain(*words)])


def _options(comparison: ComparisonValues, band: str) -> tuple[Options, list[str]]:
    lrs, tuned_how = _lrs(comparison), _tuned(comparison)
    first, seeds = asked_for(comparison.runs[0].settings), sorted({run.seed for run in comparison.runs})
    missing = list(dict.fromkeys(thing for run in comparison.runs for thing in run.settings["own"]))
    missing += ["such a choice of learning rates"] * (lrs is None or tuned_how is None)
    every_own = len({str(run.settings["straggler"]) for run in comparison.runs}) > 1  # every graph's centre
    live = "unit" in first
    task, *others = (first | ({"straggler": None} if every_own else {})).words(live)
    names = ",".join(dict.fromkeys(map(algorithm_asked, comparison.runs)))
    options = [task, ("algorithms", names), *others, *(("lr", lr) for lr in lrs or [])]
    options += [("fault", fault) for fault in first.get("faults", [])] + (tuned_how or [])
    options += [("unit", f"{1000 * first['unit']:g}ms")] if live else []
    options += [("seed", str(seeds[0]))] + [("seeds", str(seeds[-1] - seeds[0] + 1))] * (not live)
    options += [("spread", band)] * (band != "range" and not live)
    return options, missing


def _tuned(comparison: ComparisonValues) -> list[tuple[str, str]] | None:
    """How hyperparameters were tuned, as options; None if several ways were used."""
    ways = {one.options for _, one in tuned(comparison).values()}
    return None if len(ways) > 1 else [option for each in ways for option in each]


def _lrs(comparison: ComparisonValues) -> list[str] | None:
    """The values of --lr: one for all, or several, or "tuned", and then those of single algorithms."""
    asked: dict[str, tuple[float | str, ...] | str] = {}
    own: dict[str, float | str] = {}
    for (name, lr, *_), runs in comparison.groups().items():
        if isinstance(runs[0].tuning, Halving) and lr_tuned(runs[0]):
            continue
        row = find(name) if row_of(name) else None
        scale = runs[0].settings["agents"] if row is not None and row.scale_lr_by_n else 1
        bases = (float(f"{lr / scale:.12g}"), lr / scale)
        base_lr: float | str = next((x for x in bases if x * scale == lr), nan)  # nan: only its own
        if said := runs[0].settings.get("lr_said"):
            rate = Rate.of(said).times_n(-1 if scale > 1 else 0)
            base_lr = rate.said if rate.coupled else nan
        before = asked.get(name, ())
        asked[name] = "tuned" if lr_tuned(runs[0]) or isinstance(before, str) else (*before, base_lr)
        own[name] = said or lr
    if not asked:
        return []
    many = [rates for rates in asked.values() if len(rates) > 1]
    common = many[0] if many else Counter(asked.values()).most_common(1)[0][0]
    base = common if isinstance(common, str) else ",".join(map(as_word, common))
    others = [name for name, rates in asked.items() if rates != common or "nan" in base]
    if any(len(asked[name]) > 1 for name in others):
        return None
    return [base] * ("nan" not in base) + [f"{name}={as_word(own[name])}" for name in others]
