"""Who calls: hub tokens, the private token of an embedded service, and run tokens."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx

from atelier.errors import NotAllowed, Unreachable

SCOPE = "access:services!service=atelier"
CACHE_S = 30.0
UNKNOWN_CACHE_S = 5.0
MOST_CACHED = 10_000


T = TypeVar("T")


@dataclass(frozen=True)
class Caller:
    """A user who calls. ``owner`` is what records carry: the name and the time that the user was made."""

    name: str
    owner: str
    groups: frozenset[str] = frozenset()
    is_local: bool = False


class Identities(Protocol):
    """Who a user token belongs to; None when this source doesn't know it."""

    async def caller(self, token: str) -> Caller | None: ...


def local_owner(name: str) -> str:
    """The owner of all that the OS login user does, with or without a hub."""
    return f"{name}#local"


def hub_owner(name: str, created: str) -> str:
    """The owner of a hub user: a name that is made again later inherits nothing."""
    return f"{name}#{created}"


def hub_name(owner: str) -> str | None:
    """The hub user whose an owner is; None for the OS login user."""
    name = owner.rpartition("#")[0]
    return None if owner == local_owner(name) else name


@dataclass(frozen=True)
class LocalIdentities:
    """The one private token of this computer's own user."""

    token: str
    name: str

    async def caller(self, token: str) -> Caller | None:
        if hmac.compare_digest(token.encode(), self.token.encode()):
            return Caller(self.name, local_owner(self.name), is_local=True)
        return None


class _Remembered(Generic[T]):
    """The last `MOST_CACHED` answers that were used, each for some seconds."""

    def __init__(self, lifetime_s: float) -> None:
        self._lifetime_s = lifetime_s
        self._kept: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._kept and time.monotonic() - self._kept[key][0] < self._lifetime_s

    def __getitem__(self, key: str) -> T:
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def __setitem__(self, key: str, value: T) -> None:
        self._kept[key] = (time.monotonic(), value)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_CACHED:
            self._kept.popitem(last=False)


@dataclass
class HubIdentities:
    """Hub tokens, asked of the hub and remembered for `CACHE_S` seconds; unknown ones apart, for `UNKNOWN_CACHE_S`.

    Parameters
    ----------
    api_url : str
        The hub's API, e.g. ``http://127.0.0.1:8081/hub/api``.
    api_token : str
        The service's own token; reads when a user was made.
    local_name : str or None
        The hub user who is this computer's own user: his runs are the same with and without a hub.
    """

    api_url: str
    api_token: str
    local_name: str | None = None
    _known: _Remembered[Caller] = field(default_factory=lambda: _Remembered(CACHE_S))
    _unknown: _Remembered[None] = field(default_factory=lambda: _Remembered(UNKNOWN_CACHE_S))
    _http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=10.0))

    async def caller(self, token: str) -> Caller | None:
        key = hashlib.sha256(token.encode()).hexdigest()
        if key in self._known:
            return self._known[key]
        if key in self._unknown:
            return None
        found = await self._ask(token)
        if found is None:
            self._unknown[key] = None
        else:
            self._known[key] = found
        return found

    async def _ask(self, token: str) -> Caller | None:
        model = await self._get("/user", token)
        if model is None or model.get("kind") != "user":
            return None
        if not {SCOPE, "access:services"} & set(model.get("scopes", ())):
            raise NotAllowed(
                "no_scope", f"The token lacks the scope {SCOPE!r}.", hint="Use the token of your notebook server."
            )
        name = str(model["name"])
        owner = local_owner(name) if name == self.local_name else hub_owner(name, await self._created(name))
        return Caller(name, owner, frozenset(model.get("groups", ())))

    async def _created(self, name: str) -> str:
        model = await self._get(f"/users/{quote(name, safe='')}", self.api_token)
        if model is None or not model.get("created"):
            raise NotAllowed(
                "unknown_user",
                f"The hub doesn't tell when the user {name!r} was made.",
                hint="Check the service's role.",
            )
        return str(model["created"])

    async def _get(self, path: str, token: str) -> Mapping[str, Any] | None:
        try:
            answer = await self._http.get(self.api_url + path, headers={"Authorization": f"token {token}"})
        except httpx.HTTPError as problem:
            raise Unreachable(
                "hub_unreachable", "The hub does not answer, so your token can't be checked.", hint="Try again."
            ) from problem
        if answer.status_code in {401, 403, 404}:
            return None
        if answer.status_code >= 400:
            raise Unreachable(
                "hub_unreachable", f"The hub answered with status {answer.status_code}.", hint="Try again."
            )
        model: Mapping[str, Any] = answer.json()
        return model


class KnownCallers:
    """All sources of identity of one service, asked in order."""

    def __init__(self, *sources: Identities) -> None:
        self._sources = sources

    async def caller(self, authorization: str | None) -> Caller:
        """Who sent an ``Authorization`` header.

        Raises
        ------
        NotAllowed
            ``unauthenticated`` without a known token, ``no_scope`` when the token isn't for this service.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() in {"token", "bearer"} and token and token.isascii():
            for source in self._sources:
                caller = await source.caller(token.strip())
                if caller is not None:
                    return caller
        raise NotAllowed("unauthenticated", "The request has no token that this service knows.", hint="Log in again.")
