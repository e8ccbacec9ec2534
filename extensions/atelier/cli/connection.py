"""The client that a command's options name."""

from __future__ import annotations

from argparse import Namespace

from atelier.client import Client
from atelier.client.address import environ_with


def client_of(options: Namespace) -> Client:
    """The service of ``--url`` and ``--token-file``, else as `Client.find`."""
    return Client.find(environ_with(getattr(options, "url", None), getattr(options, "token_file", None)))
