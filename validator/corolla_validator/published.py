"""What the chain says of the model a validator judges: what nodes may claim to serve."""

from __future__ import annotations

from collections.abc import Callable

from corolla_core.chain.models import Models
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.provable import Publication

_SECONDS = 60.0


class Published:
    """Asked anew every minute: another version may publish another class, and a node may serve it from then on."""

    def __init__(self, models: Models, manifest: Manifest, *, clock: Callable[[], float]) -> None:
        self._models = models
        self._manifest = manifest
        self._clock = clock
        self._known: Publication | None = None
        self._asked_at = float("-inf")

    async def now(self, *, within: float = _SECONDS) -> Publication | None:
        """What was published, as of `within` seconds ago; None where nothing was. Raises ChainError."""
        if self._clock() - self._asked_at >= within:
            versions = await self._models.versions(self._manifest.name, self._manifest.root)
            self._known = None
            if versions:
                classes = frozenset(each for version in versions for each in version.numeric_classes)
                first = versions[0]
                self._known = Publication(
                    self._manifest.root, first.block_roots, classes, first.version, first.published_at
                )
            self._asked_at = self._clock()
        return self._known
