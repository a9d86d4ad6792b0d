"""A PostgreSQL server of one's own: in a temporary folder, behind a Unix socket, without rights of root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from needs import needs_program

_OF_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
INITDB = shutil.which("initdb") or (str(_OF_DEBIAN[-1]) if _OF_DEBIAN else "initdb")
needs_postgres = needs_program(INITDB, "apt-get install postgresql")


@contextmanager
def postgres() -> Iterator[str]:
    """The server's URL, to which the name of a database is appended; it is there while the context is."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path may have 107 bytes
    other: dict[str, Any] = {}
    if os.getuid() == 0:  # which the server refuses
        owner = pwd.getpwnam("nobody")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        other = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": folder}
    tools = Path(os.path.realpath(INITDB)).parent
    if not (tools / "pg_ctl").exists():
        tools = Path(INITDB).parent
    data = folder / "data"

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **other
        )
        assert done.returncode == 0, done.stdout

    try:
        run(
            tools / "initdb",
            "-D",
            data,
            "-U",
            "hookline",
            "-A",
            "trust",
            "--no-sync",
            "--no-instructions",
            "-E",
            "UTF8",
        )
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c shared_buffers=16MB"
        run(tools / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://hookline@/NAME?host={folder}"
        finally:
            run(tools / "pg_ctl", "-D", data, "-m", "immediate", "-W", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_database(server: str, name: str) -> str:
    """The URL of a new database."""
    import sqlalchemy

    url = sqlalchemy.make_url(server.replace("NAME", "postgres")).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("NAME", name)
