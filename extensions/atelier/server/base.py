"""What all handlers of the extension share: who may call, how errors are told, what counts as activity."""

from __future__ import annotations

import json
from http.client import responses
from typing import Any, cast

from jupyter_core.utils import ensure_async
from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import APIHandler
from tornado import web

from atelier.errors import AtelierError, RefusedInput
from atelier.server.events import Feed
from atelier.server.link import ServiceLink
from atelier.wire import error_body, status_of

AUTH_RESOURCE = "atelier"
SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"


class AtelierHandler(APIHandler):
    """An endpoint for authenticated callers only, whatever the server's own default is.

    Reading is not activity: a page that only watches a run must not keep its server alive.
    """

    auth_resource = AUTH_RESOURCE

    async def prepare(self) -> None:  # type: ignore[override]  # as in APIHandler itself
        self._track_activity = self.request.method not in {"GET", "HEAD", "OPTIONS"}
        await super().prepare()
        if self.current_user is None:
            raise web.HTTPError(403)
        action = HTTP_METHOD_TO_AUTH_ACTION[str(self.request.method)]
        allowed = await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, self.auth_resource))
        if not allowed:
            raise web.HTTPError(403, f"User is not authorized to {action} on resource: {self.auth_resource}.")

    @property
    def content_security_policy(self) -> str:
        return SANDBOX

    @property
    def link(self) -> ServiceLink:
        return cast(ServiceLink, self.settings["atelier_link"])

    @property
    def feed(self) -> Feed:
        return cast(Feed, self.settings["atelier_feed"])

    def json_object(self) -> dict[str, Any]:
        """The request's body; RefusedInput ``not_json`` when it is no JSON object."""
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError) as problem:
            raise RefusedInput("not_json", "The request's body is not JSON.", hint="Send a JSON object.") from problem
        if not isinstance(body, dict):
            raise RefusedInput("not_json", "The request's body is not a JSON object.", hint="Send a JSON object.")
        return body

    def answer(self, body: Any, *, status: int = 200) -> None:
        """Ends the request with JSON."""
        self.set_status(status)
        self.finish(json.dumps(body))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        problem = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(problem, AtelierError):
            self.set_status(status_of(problem))
            told = error_body(problem)
        else:
            words = getattr(problem, "log_message", None) or responses.get(status_code, "Unknown error")
            told = {"error": {"code": f"http_{status_code}", "message": words, "detail": {}, "hint": ""}}
        self.finish(json.dumps({"message": told["error"]["message"], **told}))

    def log_exception(self, kind: Any, problem: Any, trace: Any) -> None:
        if not isinstance(problem, AtelierError):
            super().log_exception(kind, problem, trace)
