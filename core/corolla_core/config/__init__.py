"""Where Corolla keeps its files, how it reads its settings, and how it logs. Shared by every actor."""

from corolla_core.config.home import home, keystore_path
from corolla_core.config.layered import LayeredSettings, Loaded, Sourced, load_settings
from corolla_core.config.logs import setup_logging

__all__ = ["LayeredSettings", "Loaded", "Sourced", "home", "keystore_path", "load_settings", "setup_logging"]
