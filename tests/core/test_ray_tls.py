"""Both ends of a link have to encrypt: what is said where one does not, or with other certificates."""

import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from certificates import certificates

from offbeat.core.errors import SettingError
from offbeat.core.system import ray_tls
from offbeat.core.system.ray_tls import FILES, USE

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")

Ends = Callable[[socket.socket], object]


@contextmanager
def listening(answers: Ends) -> Iterator[int]:
    """A server that answers every caller so; its port."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                link, _ = server.accept()
                with link, suppress(OSError):
                    answers(link)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def over_tls(environment: dict[str, str]) -> Ends:
    """As Ray does: whoever shows no certificate of the same authority is hung up on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(environment[FILES[0]], environment[FILES[1]])
    context.load_verify_locations(environment[FILES[2]])
    context.verify_mode = ssl.CERT_REQUIRED

    def answer(link: socket.socket) -> None:
        with context.wrap_socket(link, server_side=True) as talk:
            talk.sendall(b"\0\0\x18\4")
            talk.recv(1)

    return answer


def plain(link: socket.socket) -> None:
    link.sendall(b"\0\0\x18\4")
    link.recv(1000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Of two authorities."""
    folder = tmp_path_factory.mktemp("made")
    return [certificates(folder / str(k), "127.0.0.1") for k in range(2)]


def refused(
    port: int, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, host: str = "127.0.0.1"
) -> str:
    """What is said to a process with this environment; empty: nothing."""
    for name in (USE, *FILES):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        ray_tls.refuse_other("auto", host, port)
    except SettingError as error:
        return str(error)
    return ""


def test_both_encrypt_or_neither(made: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = made
    with listening(over_tls(mine)) as port:
        assert ray_tls.encrypted("127.0.0.1", port)
        assert refused(port, mine, monkeypatch) == ""
        said = refused(port, {}, monkeypatch)
        assert said.startswith(
            "The cluster at --ray auto answers over TLS alone. Expected RAY_USE_TLS=1, and RAY_"
        )
        said = refused(port, other, monkeypatch)
        assert "shows a certificate that is not good here: self-signed" in said
        said = refused(port, {**other, FILES[2]: mine[FILES[2]]}, monkeypatch)
        assert f"does not take the certificate {other[FILES[0]]}" in said
    with listening(plain) as port:
        assert not ray_tls.encrypted("127.0.0.1", port)
        assert refused(port, {}, monkeypatch) == ""
        assert "does not answer over TLS, and RAY_USE_TLS is set" in refused(port, mine, monkeypatch)


def test_who_answers_and_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray's own page in the browser, at another port than its head."""

    def page(link: socket.socket) -> None:
        link.recv(1000)
        link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(page) as port:
        assert "is not the head of a Ray cluster. Expected HOST:PORT as" in refused(port, {}, monkeypatch)


def test_a_certificate_names_the_address(made: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(over_tls(made[0])) as port:
        said = refused(port, made[0], monkeypatch, "localhost")
    assert "not good here: Hostname mismatch, certificate is not valid for 'localhost'" in said


def test_files_that_are_not_there_or_do_not_go_together(
    made: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine, other = made
    with listening(over_tls(mine)) as port:
        named = {name: path for name, path in mine.items() if name != FILES[2]}
        assert f"of {FILES[2]} there is none" in refused(port, named, monkeypatch)
        nowhere = str(tmp_path / "none")
        assert f"of {FILES[1]} {nowhere} cannot be read" in refused(
            port, {**mine, FILES[1]: nowhere}, monkeypatch
        )
        said = refused(port, {**mine, FILES[1]: other[FILES[1]]}, monkeypatch)
        assert "do not go together" in said


def test_who_does_not_answer_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert refused(port, {}, monkeypatch) == ""
