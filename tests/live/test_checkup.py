"""What the doctor says of several machines: what they have found, put together."""

from offbeat.engines.live.cluster import checkup
from offbeat.engines.live.cluster.clocks import Offset
from offbeat.engines.live.launcher.doctor import Check

HERE = {"Python": "3.11.7", "torch": "2.13.0", "offbeat": "0.1.0", "ray": "2.60.0"}


def test_versions_that_differ_and_machines_that_are_silent() -> None:
    assert checkup.same_versions(["a", "b"], [HERE, HERE], HERE).status == "ok"
    older, bare = HERE | {"offbeat": "0.0.9"}, HERE | {"torch": "2.12.1", "offbeat": "missing"}
    check = checkup.same_versions(["a", "b", "c", "d"], [HERE, older, bare, "timed out"], HERE)
    assert check.status == "FAILED"
    assert check.found == (
        "machine 1 (b) has offbeat 0.0.9 (here 0.1.0); machine 2 (c) has torch 2.12.1 (here 2.13.0), "
        "no offbeat; machine 3 (d) gives no answer: timed out"
    )
    assert check.expected == "Python 3.11.7, torch 2.13.0, offbeat 0.1.0, ray 2.60.0"
    assert "install the same versions" in check.do


def test_what_all_machines_have_found_is_said_once() -> None:
    fine, little, none = (
        Check("ok", "4 cores", "2"),
        Check("ok", "2 cores", "2"),
        Check("FAILED", "1", "2", "more"),
    )
    found = {
        0: {"cores": fine, "CUDA": fine},
        1: {"cores": little, "CUDA": fine},
        3: {"cores": fine, "CUDA": fine},
    }
    assert checkup.said_once(found) == {"cores, 0, 3": fine, "cores, 1": little, "CUDA": fine}
    assert checkup.said_once({0: {"cores": fine}, 1: {"checks": none}}) == {
        "cores, 0": fine,
        "checks, 1": none,
    }


def test_clocks_and_links() -> None:
    check = checkup.clocks({"0 (a):": Offset(12_000, 100_000), "1 (b):": Offset(-5_500_000_000, 9_000_000)})
    assert (check.status, check.found) == (
        "ok",
        "0 (a): +0.000012 s to 0.10 ms; 1 (b): -5.500000 s to 9.00 ms",
    )
    assert checkup.clocks({"0 (a):": Offset(0, 11_000_000)}).status == "warning"
    check = checkup.link([(0.4, 800.0), (0.6, 790.4)])
    assert (check.status, check.found) == ("ok", "0.6 ms there and back; 800 MB/s, back 790 MB/s")
    assert checkup.link([(0.4, 800.0), (0.6, 9.0)]).status == "warning"
    assert checkup.link([(0.4, 800.0), (101.0, 800.0)]).status == "warning"
    check = checkup.link([(0.4, 800.0), "machine 1 had no answer from machine 0: timed out"])
    assert (check.status, check.found) == ("FAILED", "machine 1 had no answer from machine 0: timed out")
    assert "open the ports of Ray" in check.do
