"""The extension as Jupyter Server loads it."""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp
from traitlets import Int

from atelier.server.events import Feed
from atelier.server.handlers import HANDLERS
from atelier.server.link import ServiceLink
from atelier.server.questions import Questions


class AtelierServer(ExtensionApp):
    """Serves ``<base_url>/atelier/…``: the run service under the notebook's own origin and login."""

    name = "atelier"
    extension_url = "/lab"
    load_other_extensions = True

    largest_body_bytes = Int(
        10 * 2**30, help="Longest body of an upload (code bundles and model files) that is passed on."
    ).tag(config=True)

    def initialize_settings(self) -> None:
        self._link = ServiceLink()
        self._feed = Feed(self._link)
        self.settings.update(
            atelier_link=self._link,
            atelier_feed=self._feed,
            atelier_questions=Questions(),
            atelier_largest_body=self.largest_body_bytes,
        )

    def initialize_handlers(self) -> None:
        self.handlers.extend(HANDLERS)

    async def stop_extension(self) -> None:
        await self._feed.close()
        await self._link.close()
