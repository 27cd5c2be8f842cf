"""The folder of `offbeat live`: which experiment is in it.

- `live.json`: what was asked for; written before anything starts
- `NAME-lrRATE/`: a run: what its agents wrote (see `offbeat.experiments.live.running`)
"""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from offbeat.core.errors import DiskError, SettingError
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading, refuse_newer, refuse_unknown
from offbeat.engines.live.launcher.outfolder import SERIES, named
from offbeat.engines.live.node.saving import refuse_other

FORMAT = "live 1"
EXPECTED = "the settings of a run of offbeat live"

SEVERAL: dict[str, set[type]] = {"checkpoint_every": {int, str, type(None)}}
"""What may be of several types: a number of steps, or text as in '60s'."""


def keep_asked(folder: Path, asked: Mapping[str, Any], how: Mapping[str, Any]) -> None:
    """Write down what was asked for: the experiment, and how it is run. Raises DiskError."""
    content = {"format": FORMAT, "asked": asked, "how": how}
    try:
        write_atomically(folder / SERIES, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise DiskError(f"Cannot write {folder / SERIES}: {error.strerror or error}.") from error


def asked_before(
    out: Path | None, asked: Mapping[str, Any], how: Mapping[str, Any], given: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was asked for when the run in this folder was started, and how it goes on.

    Args:
        given: the names of what was said this time. Of `asked` it must be what was said then; of `how` it
            counts.

    Raises SettingError, with the differences, if it is another experiment, or there is none.
    """
    folder = named(out)
    path = folder / SERIES
    if not path.exists():
        raise SettingError(
            f"{folder} holds no run of offbeat live that could go on: there is no {SERIES}. Expected the "
            "--out of an earlier run; without --resume a new one starts there."
        )
    with reading(path, EXPECTED):
        saved = json_in(path)
        refuse_newer(path, saved.get("format", FORMAT), FORMAT)
        before, then = _known(saved["asked"], asked), _known(saved["how"], how)
    now = {name: json.loads(json.dumps(value)) for name, value in asked.items() if name in given}
    refuse_other(
        {name: before.get(name) for name in now}, now,
        f"{folder} holds another experiment. Name the same settings, or none, or another --out:",
    )  # fmt: skip
    return before, then | {name: value for name, value in how.items() if name in given}


def _known(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings, as many and of such types as there are now. Raises ValueError for others."""
    refuse_unknown(saved, {name: SEVERAL.get(name) or _kinds(value) for name, value in now.items()})
    return {**now, **saved}


def _kinds(value: object) -> set[type]:
    """What a value may be in place of this one; empty: anything."""
    if value is None:
        return set()
    return {int, float, type(None)} if type(value) in (int, float) else {type(value), type(None)}
