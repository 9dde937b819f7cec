"""One database, one thread: what must survive a crash is written here and nowhere else."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.pool import StaticPool

from corolla_core.protocol.errors import CorollaError, StoreError
from corolla_core.store.migrate import upgrade

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_MS = 5000


class Store:
    """An open database whose schema is current.

    `sqlite:///path/to/file.db`, `postgresql://user:password@host/name`, or a bare file path (SQLite). SQLite runs in
    WAL mode with synchronous=FULL: a transaction that returned is on the disk, whatever dies next.

    Async code awaits `run`, which serves calls one at a time in order on the store's own thread; synchronous code may
    call the stores directly. Every database failure is a StoreError, and the transaction it hit did not happen.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._joined = _Joined()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    @classmethod
    def open(cls, url: str | Path) -> Store:
        """Connect and migrate to the newest schema. Raises StoreError."""
        engine = _engine(_url(url))
        try:
            with _typed_errors():
                upgrade(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(*args, **kwargs)` on the store's thread. A cancelled caller abandons the answer, never the write."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._thread, functools.partial(fn, *args, **kwargs))
        return await asyncio.shield(work)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Everything the stores do inside, on this thread, as one transaction: one write to the disk, all or nothing.

        A call that raises and is caught inside undoes only itself.
        """
        outer = self._joined.connection
        with self.transaction() as connection:
            self._joined.connection = connection
            try:
                yield
            finally:
                self._joined.connection = outer

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed when the block ends (or with the `together` around it), undone when it raises."""
        joined = self._joined.connection
        with _typed_errors():
            if joined is None:
                with self.engine.begin() as connection:
                    yield connection
            else:
                with joined.begin_nested():
                    yield joined

    def atomically(self, work: Callable[[Connection], T]) -> T:
        """`work` in one transaction, once more if another process inserted the same row first."""
        try:
            with self.transaction() as connection:
                return work(connection)
        except _LostRace:
            with self.transaction() as connection:
                return work(connection)

    def close(self) -> None:
        """Finish what was asked, then let go of the database."""
        self._thread.shutdown(wait=True)
        self.engine.dispose()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Joined(threading.local):
    """The transaction that calls on this thread are part of."""

    connection: Connection | None = None


class _LostRace(StoreError):
    """Another process inserted the row this transaction found missing."""


def _url(given: str | Path) -> URL:
    text = str(given)
    if isinstance(given, Path) or "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except ArgumentError:
        raise StoreError("not a database URL", reason="invalid") from None  # the text may hold a password
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    return url


def _engine(url: URL) -> Engine:
    if url.drivername == "postgresql+psycopg":
        return create_engine(url, pool_size=2, pool_pre_ping=True, connect_args={"connect_timeout": 5})
    if url.drivername != "sqlite":
        raise StoreError(f"no support for {url.drivername} databases", reason="invalid")
    arguments: dict[str, Any] = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    if url.database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args=arguments)
    else:
        try:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"cannot make the database's folder: {error}", reason="unavailable") from None
        engine = create_engine(url, connect_args=arguments)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own: _begin_immediate does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    # Taking the write lock at once means a read-then-write transaction never fails halfway on somebody else's write.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise _LostRace(f"the row is already there: {error.orig}", reason="invalid") from error
    except DBAPIError as error:
        reason = _reason(error.orig)
        raise StoreError(f"the database refused: {error.orig}", reason=reason) from error
    except StatementError as error:  # a value did not fit its column, before the database saw it
        if isinstance(error.orig, CorollaError):
            raise error.orig from None
        raise StoreError(f"cannot be stored: {error.orig}", reason="invalid") from error
    except OverflowError as error:
        raise StoreError(f"cannot be stored: {error}", reason="invalid") from error


_SQLITE_REASONS = {5: "locked", 6: "locked", 8: "unavailable", 10: "unavailable", 14: "unavailable", 13: "full"}
_SQLITE_CORRUPT = (11, 26)
_POSTGRES_REASONS = {"53100": "full", "40001": "locked", "40P01": "locked", "55P03": "locked"}


def _reason(original: BaseException | None) -> str:
    code = getattr(original, "sqlite_errorcode", None)
    if isinstance(code, int):
        primary = code & 0xFF  # extended codes keep the primary one in their low byte
        return "corrupt" if primary in _SQLITE_CORRUPT else _SQLITE_REASONS.get(primary, "invalid")
    state = getattr(original, "sqlstate", None)
    if state is None:
        return "unavailable"  # psycopg lost or never had the connection
    if state in _POSTGRES_REASONS:
        return _POSTGRES_REASONS[state]
    return "unavailable" if str(state)[:2] in ("08", "57", "53") else "invalid"
