"""A store in a database: SQLite without any set-up, PostgreSQL by its URL."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hookline import Counts, DataError, PluginError, ServiceError
from hookline_plugins.stores.ledger import Ledger, LedgerConfig
from hookline_plugins.stores.log import Annotator, Entry
from hookline_plugins.stores.tables import LEASED, Held, Tables

WAIT = 30
"""Seconds that a writer waits for others to finish."""
ENTRY = "seq, kind, who, at, body, hash"
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE head (seq INTEGER NOT NULL, hash TEXT NOT NULL)",
        "INSERT INTO head VALUES (0, '')",
        "CREATE TABLE log (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, who TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,"
        " body TEXT NOT NULL, hash TEXT NOT NULL)",
        "CREATE TABLE annotators (who TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, key TEXT NOT NULL)",
        "CREATE TABLE items (item TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, priority DOUBLE PRECISION NOT NULL,"
        " overlap INTEGER NOT NULL, answered INTEGER NOT NULL)",
        "CREATE INDEX waiting ON items (priority DESC, seq) WHERE answered < overlap",
        "CREATE TABLE events (event TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, who TEXT NOT NULL, item TEXT NOT NULL)",
        "CREATE INDEX said ON events (who, seq)",
        "CREATE TABLE held (item TEXT NOT NULL, who TEXT NOT NULL, state TEXT NOT NULL, until DOUBLE PRECISION NOT NULL,"
        " PRIMARY KEY (item, who))",
        "CREATE INDEX leases ON held (who, until)",
    ),
)
"""What brings a database from each version to the next. A version that was released is never changed here."""


class SQL(Ledger):
    """A database. SQLite survives a power failure (WAL, synchronous=FULL), and several processes may use one file."""

    schemes = ("sqlite", "postgresql", "postgres")

    def __init__(self, config: LedgerConfig) -> None:
        super().__init__(config)
        self._engine: Any = None

    @cached_property
    def where(self) -> str:
        return str(self._url.render_as_string(hide_password=True))

    @cached_property
    def _url(self) -> Any:
        url = _sqlalchemy().engine.make_url
        try:
            found = url(self.config.url)
        except _sqlalchemy().exc.ArgumentError:
            raise DataError(
                f"{self.config.url} is not a database URL", "write sqlite:///FILE or postgresql://…"
            ) from None
        return found.set(drivername="postgresql+psycopg") if found.drivername in ("postgres", "postgresql") else found

    @property
    def _file(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(self._url.database) if self._url.drivername.startswith("sqlite") and self._url.database else None

    def open(self, *, create: bool = True) -> None:
        if self._engine is not None:
            return
        if self._url.drivername.startswith("sqlite"):
            if self._file is None or str(self._file) == ":memory:":
                raise DataError(f"{self.where} names no file", "write sqlite:///answers.db")
            if not create and not self._file.exists():
                raise DataError(f"there is no store {self._file}", "check the path")
            if not self._file.parent.is_dir():
                raise DataError(f"there is no folder {self._file.parent}", f"mkdir -p {self._file.parent}")
            with self._told():
                self._file.touch(mode=0o600)  # the keys are in it
        with self._told():
            self._engine = _engine(self._url, new=self._file is not None and not self._file.stat().st_size)
        try:
            self._migrate(create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        self._engine = None

    def _migrate(self, create: bool) -> None:
        """Bring the database to the present version, each step in a transaction of its own."""
        with self._told(), self._engine.connect().execution_options(writes=True) as connection:
            while True:
                with connection.begin():
                    if connection.dialect.name == "postgresql":
                        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7220151)")
                    version = self._version(connection, create)
                    if version == len(MIGRATIONS):
                        return
                    for statement in MIGRATIONS[version]:
                        connection.exec_driver_sql(statement)
                    connection.exec_driver_sql("UPDATE hookline_store SET version = version + 1")

    def _version(self, connection: Any, create: bool) -> int:
        """The version of the database; 0 for a new one. Raises DataError for one that this Hookline cannot use."""
        there = set(_sqlalchemy().inspect(connection).get_table_names())
        if "hookline_store" not in there:
            if there or not create:
                raise DataError(f"{self.where} is not a store of Hookline", "name another database")
            connection.exec_driver_sql("CREATE TABLE hookline_store (version INTEGER NOT NULL)")
            connection.exec_driver_sql("INSERT INTO hookline_store VALUES (0)")
        version: int = connection.exec_driver_sql("SELECT version FROM hookline_store").scalar()
        if version > len(MIGRATIONS):
            raise DataError(
                f"{self.where} has version {version}, this Hookline knows {len(MIGRATIONS)}", "upgrade hookline"
            )
        return version

    @contextmanager
    def _reading(self) -> Iterator[Tables]:
        with self._told(), self._open.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield Rows(connection)

    @contextmanager
    def _writing(self) -> Iterator[Tables]:
        with self._told(), self._open.connect().execution_options(writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("LOCK TABLE head IN EXCLUSIVE MODE")
            rows = Rows(connection)
            yield rows
            rows.finish()

    @property
    def _open(self) -> Any:
        if self._engine is None:
            raise DataError(f"the store {self.where} is closed", "open it: hookline.store(URL)")
        return self._engine

    def forget(self, annotator: str) -> int:
        count = super().forget(annotator)
        with self._told(), self._open.connect() as connection:  # what was deleted is in no file any more
            if self._file:
                busy = connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if busy:
                    raise ServiceError(
                        f"{self.where}: '{annotator}' is removed, but the key is still in {self._file}-wal, because another "
                        "process reads the store",
                        f"stop the others, then: hookline store verify {self.config.url}",
                    )
            else:
                vacuum = connection.execution_options(isolation_level="AUTOCOMMIT")
                vacuum.exec_driver_sql("VACUUM FULL annotators")  # without FULL, the key's bytes may stay in a page
        return count

    def backup(self, path: Path) -> None:
        if path.exists():
            raise DataError(f"{path} already exists", "name another file")
        aside = path.with_name(f".{path.name}.aside")
        for old in path.parent.glob(f"{aside.name}*"):
            old.unlink()
        with type(self)(self.config.model_copy(update={"url": f"sqlite:///{aside}"})) as copy:
            copy.open()
            if self._file:
                with self._told(), self._open.connect() as one, copy._open.connect() as other:
                    one.connection.driver_connection.backup(other.connection.driver_connection)
            else:
                self.copy_to(copy)
        handle = os.open(aside, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        aside.replace(path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn an error of the database into one sentence."""
        exc = _sqlalchemy().exc
        raw = self._engine.dialect.loaded_dbapi if self._engine is not None else exc
        try:
            yield
        except exc.TimeoutError:
            raise ServiceError(f"{self.where}: all connections are in use", "try again later") from None
        except (exc.DBAPIError, raw.DatabaseError, raw.InterfaceError) as err:
            why = " ".join(str(getattr(err, "orig", err)).split())
            of_the_place = (exc.OperationalError, exc.InterfaceError, raw.OperationalError, raw.InterfaceError)
            raise self._error(why, isinstance(err, of_the_place)) from err
        except OSError as err:
            raise ServiceError(f"{self.where}: {err.strerror}", "check the folder and its permissions") from None
        except ImportError as err:
            raise PluginError(f"{self.where} needs {err.name}", "pip install 'hookline[postgres]'") from None

    def _error(self, why: str, of_the_place: bool) -> DataError | ServiceError:
        if "is not a database" in why or "malformed" in why:
            return DataError(
                f"{self.where} is damaged, or is not an SQLite database: {why}",
                "restore a backup, or name another file",
            )
        if "is full" in why or "No space left" in why or "disk I/O error" in why:
            return ServiceError(
                f"{self.where} cannot be written: {why}; nothing of this was stored", "free some space, then repeat it"
            )
        if "locked" in why or "lock timeout" in why:
            return ServiceError(f"{self.where} was locked by another process for {WAIT} s", "repeat it later")
        hint = "check that it is there and may be written, then repeat it" if of_the_place else "report it"
        return ServiceError(f"{self.where}: {why}", hint)


class Rows(Tables):
    """Tables of a database, in one transaction of a connection."""

    def __init__(self, connection: Any) -> None:
        self._driver = connection.connection.driver_connection
        self._named = connection.dialect.name == "sqlite"
        self._head: tuple[int, str] | None = None
        self._staged: list[Entry] = []
        """Entries of this transaction, which are written at its end."""
        self._people: dict[str, Annotator] = {}
        """Annotators who were read in this transaction, by name."""

    def _all(self, statement: str, **values: Any) -> Any:
        """Execute a statement by the driver alone: an answer takes some twenty, each of which costs more in SQLAlchemy."""
        return self._driver.execute(statement if self._named else _of_psycopg(statement), values)

    def _one(self, statement: str, **values: Any) -> Any:
        return self._all(statement, **values).fetchone()

    def head(self) -> tuple[int, str]:
        if self._head is None:
            self._head = tuple(self._one("SELECT seq, hash FROM head"))
        return self._head

    def write(self, entries: Sequence[Entry]) -> None:
        self._staged += entries
        self._head = (entries[-1].seq, entries[-1].hash)

    def finish(self) -> None:
        """Write the entries of the transaction."""
        if self._staged:
            statement = "INSERT INTO log VALUES (:seq, :kind, :who, :at, :body, :hash)"
            rows = [vars(entry) for entry in self._staged]
            self._driver.cursor().executemany(statement if self._named else _of_psycopg(statement), rows)
            self._all("UPDATE head SET seq = :seq, hash = :hash", seq=self._staged[-1].seq, hash=self._staged[-1].hash)

    def entry(self, seq: int) -> Entry:
        if self._staged and seq >= self._staged[0].seq:
            return self._staged[seq - self._staged[0].seq]
        return Entry(*self._one(f"SELECT {ENTRY} FROM log WHERE seq = :seq", seq=seq))

    def annotator(self, name: str) -> Annotator | None:
        if name not in self._people:
            found = self._one("SELECT who, name, key FROM annotators WHERE name = :name", name=name)
            if found is None:
                return None
            self._people[name] = Annotator(*found)
        return self._people[name]

    def annotators(self) -> dict[str, Annotator]:
        return {row[0]: Annotator(*row) for row in self._all("SELECT who, name, key FROM annotators")}

    def enrol(self, annotator: Annotator) -> None:
        self._all("INSERT INTO annotators VALUES (:who, :name, :key)", **vars(annotator))

    def item(self, item: str) -> tuple[int, int] | None:
        found = self._one("SELECT seq, overlap FROM items WHERE item = :item", item=item)
        return (found[0], found[1]) if found else None

    def event(self, event: str) -> int | None:
        found = self._one("SELECT seq FROM events WHERE event = :event", event=event)
        return found[0] if found else None

    def log(self, after: int, most: int) -> list[Entry]:
        found = self._all(
            f"SELECT {ENTRY} FROM log WHERE seq > :after ORDER BY seq LIMIT :most", after=after, most=most
        )
        return [Entry(*row) for row in found]

    def indexed(self, kind: str, who: str | None, after: int, most: int) -> list[Entry]:
        only, values = (" AND who = :who", {"who": who}) if who is not None else ("", {})
        index = f"SELECT seq FROM {'items' if kind == 'item' else 'events'} WHERE seq > :after{only} ORDER BY seq LIMIT :most"
        found = self._all(
            f"SELECT {ENTRY} FROM log WHERE seq IN ({index}) ORDER BY seq", after=after, most=most, **values
        )
        return [Entry(*row) for row in found]

    def held(self, item: str) -> dict[str, Held]:
        found = self._all("SELECT who, state, until FROM held WHERE item = :item", item=item)
        return {row[0]: Held(row[1], row[2]) for row in found}

    def leased(self, who: str, now: float) -> list[str]:
        found = self._all(
            "SELECT item FROM held JOIN items USING (item) WHERE who = :who AND until > :now AND state = 'leased'"
            " ORDER BY priority DESC, seq",
            who=who, now=now,
        )  # fmt: skip
        return [row[0] for row in found]

    def next(self, who: str, now: float, beside: Collection[str] = ()) -> str | None:
        found = self._all(
            "SELECT item FROM items WHERE answered < overlap"
            " AND NOT EXISTS (SELECT 1 FROM held WHERE held.item = items.item AND who = :who AND state != 'leased')"
            " AND overlap > answered + (SELECT count(*) FROM held WHERE held.item = items.item AND who != :who"
            " AND state = 'leased' AND until > :now) ORDER BY priority DESC, seq LIMIT :most",
            who=who, now=now, most=len(beside) + 1,
        )  # fmt: skip
        return next((row[0] for row in found if row[0] not in beside), None)

    def add_item(self, item: str, seq: int, priority: float, overlap: int) -> None:
        self._all("INSERT INTO items VALUES (:item, :seq, :priority, :overlap, 0)",
                  item=item, seq=seq, priority=priority, overlap=overlap)  # fmt: skip
        self._settle(item)

    def add_event(self, event: str, seq: int, who: str, item: str) -> None:
        self._all("INSERT INTO events VALUES (:event, :seq, :who, :item)", event=event, seq=seq, who=who, item=item)

    def hold(self, item: str, who: str, held: Held) -> None:
        self._all(
            "INSERT INTO held VALUES (:item, :who, :state, :until)"
            " ON CONFLICT (item, who) DO UPDATE SET state = excluded.state, until = excluded.until",
            item=item, who=who, state=held.state, until=held.until,
        )  # fmt: skip
        if held.state != LEASED:
            self._settle(item)

    def _settle(self, item: str) -> None:
        self._all(
            "UPDATE items SET answered = (SELECT count(*) FROM held WHERE held.item = :item AND state = 'answered')"
            " WHERE item = :item", item=item,
        )  # fmt: skip

    def remove(self, who: str) -> None:
        self._people.clear()
        items = [row[0] for row in self._all("SELECT item FROM held WHERE who = :who", who=who)]
        for table in ("annotators", "events", "held"):
            self._all(f"DELETE FROM {table} WHERE who = :who", who=who)
        for item in items:
            self._settle(item)

    def counts(self) -> Counts:
        return Counts(*self._one(
            "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM items WHERE answered >= overlap),"
            " (SELECT count(*) FROM events), (SELECT count(*) FROM annotators), (SELECT coalesce(max(seq), 0) FROM events)"
        ))  # fmt: skip

    def rows(self) -> Iterator[tuple[Any, ...]]:
        for table, columns in (
            ("item", "item, seq, priority, overlap FROM items"),
            ("event", "event, seq, who, item FROM events"),
            ("held", "item, who, state, until FROM held"),
        ):
            yield from sorted((table, *row) for row in self._all(f"SELECT {columns}"))

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        head, count = self._head, len(self._staged)
        self._all("SAVEPOINT part")
        try:
            yield
        except DataError:  # any other error undoes the whole transaction
            self._head, self._staged = head, self._staged[:count]
            self._people.clear()
            self._all("ROLLBACK TO SAVEPOINT part")
            raise
        self._all("RELEASE SAVEPOINT part")


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise PluginError("a store in a database needs SQLAlchemy", "pip install 'hookline[feedback]'") from None
    return sqlalchemy


@cache
def _of_psycopg(statement: str) -> str:
    """A statement with the places of its values as psycopg writes them."""
    return re.sub(r":(\w+)", r"%(\1)s", statement)


def _engine(url: Any, new: bool) -> Any:
    """Connections to a database. A transaction that writes excludes other writers from its beginning.

    new: a file without content, which becomes one with a write-ahead log; another file may be somebody else's.
    """
    sqlalchemy = _sqlalchemy()
    sqlite = url.drivername.startswith("sqlite")
    arguments = (
        {"timeout": WAIT, "check_same_thread": False, "isolation_level": None}
        if sqlite
        else {"connect_timeout": 10, "options": f"-c lock_timeout={WAIT}s -c synchronous_commit=on"}
    )
    engine = sqlalchemy.create_engine(
        url, connect_args=arguments, pool_pre_ping=not sqlite, pool_size=8, max_overflow=56
    )

    def connected(connection: Any, _: Any) -> None:
        if sqlite:
            cursor = connection.cursor()
            wal = ["journal_mode=WAL"] if new else []  # which stays
            for pragma in (*wal, "synchronous=FULL", "secure_delete=ON", f"busy_timeout={WAIT * 1000}"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    def begun(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes")
        if sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sqlalchemy.event.listen(engine, "connect", connected)
    sqlalchemy.event.listen(engine, "begin", begun)
    return engine
