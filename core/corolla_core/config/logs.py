"""Logging: readable on a terminal, one JSON object a line otherwise. Always on stderr: stdout is for data."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor


def setup_logging(level: str = "info", *, stream: TextIO | None = None, as_json: bool | None = None) -> None:
    """Send structlog's and the standard library's records to `stream` (stderr).

    `as_json` None means JSON lines unless the stream is a terminal. `NO_COLOR` is respected. Bind context with
    `structlog.contextvars.bound_contextvars(session=…, peer=…, span=…)`.
    """
    out = stream or sys.stderr
    lines = not out.isatty() if as_json is None else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    tail: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=_readable)]
        if lines
        else [structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # configure() keeps what it is not told, and a Client made before may have set a quieter one.
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("hivemind", "web3", "urllib3", "httpx", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _readable(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
