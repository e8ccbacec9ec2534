"""The store: everything the run service knows, in SQL."""

from __future__ import annotations

from collections.abc import Callable

from atelier.service.store.database import Database, told_database_errors
from atelier.service.store.files import ArtifactStore, ModelStore
from atelier.service.store.keeping import KeepingStore, Removable
from atelier.service.store.leases import Lease, LeaseStore
from atelier.service.store.lifecycle import Outcome, hash_token, holder_of
from atelier.service.store.migrate import migrate
from atelier.service.store.ordering import PATIENCE_S
from atelier.service.store.owning import OwningStore
from atelier.service.store.ownorder import OwnOrder
from atelier.service.store.removals import RemovalStore
from atelier.service.store.reserve import Reserve, is_disk_full
from atelier.service.store.runs import RunStore
from atelier.service.store.streams import StreamStore, parse_points
from atelier.service.store.submits import NewRun
from atelier.service.store.workqueue import Capacity, Claim, Queue, Quota, Stir, Wait

__all__ = [
    "Capacity",
    "Claim",
    "Lease",
    "NewRun",
    "Outcome",
    "Queue",
    "Quota",
    "Removable",
    "Stir",
    "Store",
    "Wait",
    "hash_token",
    "holder_of",
    "is_disk_full",
    "parse_points",
]


class Store:
    """All parts of the store over one database; the schema is brought up to date when it is opened.

    Thread-safe: each call takes its own connection. A second service on the same database is kept off by the service's
    own lock, not by the store. ``on_new`` may refuse to make the tables of a new database, by raising.
    """

    def __init__(
        self, url: str, on_new: Callable[[], None] = lambda: None, *, queue_patience_s: float = PATIENCE_S
    ) -> None:
        with told_database_errors(url):
            self.database = Database(url)
            try:
                migrate(self.database, on_new)
            except BaseException:
                self.database.close()
                raise
        self.reserve = Reserve(self.database.folder / "reserve" if self.database.folder is not None else None)
        self.runs = RunStore(self.database, queue_patience_s)
        self.queue = Queue(self.database, queue_patience_s)
        self.order = OwnOrder(self.database)
        self.leases = LeaseStore(self.database)
        self.streams = StreamStore(self.database)
        self.artifacts = ArtifactStore(self.database)
        self.models = ModelStore(self.database)
        self.removals = RemovalStore(self.database)
        self.keeping = KeepingStore(self.database)
        self.owning = OwningStore(self.database)

    def close(self) -> None:
        """Let go of all connections."""
        self.database.close()
