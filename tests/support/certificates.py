"""Certificates for a Ray cluster with TLS on this machine, made by the `openssl` command."""

import subprocess
from pathlib import Path

from offbeat.core.system.ray_tls import FILES, USE

AUTHORITY = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj /CN=authority"
SIGN = "x509 -req -days 2 -CAcreateserial"
REQUEST = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=node"


def certificates(folder: Path, address: str) -> dict[str, str]:
    """An authority, and a certificate of it for the node at this address: the environment that names them."""
    certificate, key, authority = (folder / name for name in ("node.crt", "node.key", "authority.crt"))

    def openssl(command: str, *files: str | Path) -> None:
        subprocess.run(["openssl", *command.split(), *map(str, files)], check=True, capture_output=True)

    folder.mkdir()
    (folder / "names").write_text(f"subjectAltName=IP:127.0.0.1,IP:{address}\n")
    openssl(AUTHORITY, "-keyout", folder / "authority.key", "-out", authority)
    openssl(REQUEST, "-keyout", key, "-out", folder / "node.csr")
    signed: list[str | Path] = ["-in", folder / "node.csr", "-out", certificate, "-extfile", folder / "names"]
    openssl(SIGN, *signed, "-CA", authority, "-CAkey", folder / "authority.key")
    return {USE: "1", **dict(zip(FILES, map(str, (certificate, key, authority)), strict=True))}
