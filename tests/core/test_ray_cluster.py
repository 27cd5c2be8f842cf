"""What would have Ray end this process is said before."""

import socket
from pathlib import Path

import pytest

from offbeat.core.errors import SettingError
from offbeat.core.system.ray_cluster import cluster, refuse_tokenless


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_token_that_is_asked_for_and_not_there_is_said(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    refuse_tokenless()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    path = tmp_path / ".ray" / "auth_token"
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
    with pytest.raises(
        SettingError, match=f"RAY_AUTH_TOKEN is not set, and {path}.*Expected RAY_AUTH_MODE=token"
    ):
        refuse_tokenless()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "mine"))
    with pytest.raises(SettingError, match="mine: No such file"):
        refuse_tokenless()
    (tmp_path / "mine").write_text("token\n")
    refuse_tokenless()
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")
    refuse_tokenless()


def test_an_address_that_ray_takes_for_another_is_refused_where_nobody_answers_there() -> None:
    """Of 127.0.0.1 it makes this machine's own address, and waited there for minutes."""
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SettingError, match=rf"--ray {address}"), cluster(address):
            pass


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("local:0", "expected 1 to 32 nodes"), ("local:1000", "expected 1 to 32 nodes"),
        ("127.0.0.1:0", "a port from 1 to 65535"), ("127.0.0.1:65536", "a port from 1 to 65535"),
        ("local", "expected 'auto', HOST:PORT"), ("127.0.0.1", "expected 'auto', HOST:PORT"),
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_before_anything_starts(address: str, said: str) -> None:
    with pytest.raises(SettingError, match=said), cluster(address):
        pass
