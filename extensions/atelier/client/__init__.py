"""The client of the run service: `Client.find` knows where it is, the methods mirror its HTTP resources."""

from __future__ import annotations

from atelier.client.address import Address
from atelier.client.events import Event
from atelier.client.resources import Client

__all__ = ["Address", "Client", "Event"]
