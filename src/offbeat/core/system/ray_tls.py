"""Whether both ends of the link to a Ray cluster encrypt: where one does not, Ray waits for ever.

Ray's TLS is of both sides: whoever calls and whoever is called shows a certificate of the same authority, and
that of the called one has to name the address at which it is called.
"""

import os
import socket
import ssl

from offbeat.core.errors import SettingError

USE, FILES = "RAY_USE_TLS", ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
EXPECTED = f"Expected {USE}=1, and {', '.join(FILES)} with the paths of files of its authority"
SETTINGS = b"\4"  # the type of HTTP/2's first frame, behind its length of 3 bytes
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0" + SETTINGS + bytes(5)
SECONDS = 5.0  # for an answer


def wanted() -> bool:
    """Whether this process is to encrypt."""
    return os.environ.get(USE, "0").lower() in ("1", "true")


def encrypted(host: str, port: int) -> bool:
    """Whether who listens there speaks TLS. Raises OSError where nobody answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _greeted(context, host, port)
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)  # an answer in TLS, which misses our certificate
    except (ConnectionResetError, BrokenPipeError):
        return False
    return True


def refuse_other(address: str, host: str, port: int) -> None:
    """Raise SettingError where the cluster encrypts and this process does not, or with other certificates, or
    the other way round.

    Args:
        address: what the user calls it
    """
    try:
        there = encrypted(host, port)
    except OSError:
        return  # Ray says what it is
    cluster = f"The cluster at --ray {address}"
    if there and not wanted():
        raise SettingError(f"{cluster} answers over TLS alone. {EXPECTED}.")
    if wanted() and not there:
        do = f"Expected {USE} unset, or a cluster that was started with it"
        raise SettingError(f"{cluster} does not answer over TLS, and {USE} is set. {do}.")
    if not there and not _speaks_http2(host, port):
        do = "Expected HOST:PORT as 'ray start --head' says it, with port 6379 unless another was named"
        raise SettingError(f"Who answers at --ray {address} is not the head of a Ray cluster. {do}.")
    if there:
        try:
            taken = _greeted(_own_context(), host, port)
        except ssl.SSLCertVerificationError as error:
            why = f"shows a certificate that is not good here: {error.verify_message}"
            raise SettingError(f"{cluster} {why}. {EXPECTED}.") from None
        except OSError:
            taken = b""
        if not taken:
            raise SettingError(f"{cluster} does not take the certificate {os.environ[FILES[0]]}. {EXPECTED}.")


def _speaks_http2(host: str, port: int) -> bool:
    """Whether who listens there answers so when greeted: all of Ray does, by gRPC, but not its web pages."""
    try:
        with socket.create_connection((host, port), SECONDS) as link:
            link.sendall(GREETING)
            return link.recv(4, socket.MSG_WAITALL)[3:] == SETTINGS
    except OSError:
        return True  # he may be busy


def _own_context() -> ssl.SSLContext:
    """With what the environment names, as Ray has it. Raises SettingError for what cannot be read."""
    for name in FILES:
        path = os.environ.get(name)
        if path is None or not os.access(path, os.R_OK):
            got = "there is none" if path is None else f"{path} cannot be read"
            raise SettingError(f"{USE} is set, and of {name} {got}. {EXPECTED}.")
    certificate, key, authority = (os.environ[name] for name in FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise SettingError(f"{certificate}, {key} and {authority} do not go together: {error}.") from None
    return context


def _greeted(context: ssl.SSLContext, host: str, port: int) -> bytes:
    """The first byte of the answer, after both have agreed on how they talk; empty where one hangs up."""
    with (
        socket.create_connection((host, port), SECONDS) as link,
        context.wrap_socket(link, server_hostname=host) as talk,
    ):
        return talk.recv(1) if context.verify_mode is ssl.CERT_REQUIRED else b""
