"""Where a program's log lines go that uses the client and has set up no logging: stdout is the program's own."""

from __future__ import annotations

import logging
import sys

import structlog


def quiet_unless_configured() -> None:
    """Send warnings and worse to stderr, unless structlog has been configured; it may still be, afterwards."""
    if structlog.is_configured():
        return
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        # Looked up for every logger, for a program may redirect its stderr.
        logger_factory=lambda *_names: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
