"""Starts kernels on accelerators: a kernel leases its machine's devices from the run service, and gives them back.

The lease is renewed while the kernel lives; when the user server dies, it ends by itself and the devices are free.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from tornado.web import HTTPError
from traitlets import Unicode

from atelier.errors import AtelierError
from atelier.server.endpoint import find_endpoint
from atelier.wire import API, error_from, status_of

NVIDIA_GPU = "nvidia.com/gpu"
TIMEOUT_S = 10.0


class LeasingProvisioner(LocalProvisioner):
    """A local kernel that sees exactly the accelerators that it has leased."""

    machine = Unicode(config=True, help="The machine of the catalog whose accelerators the kernel needs.")

    _renewal: asyncio.Task[None] | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Lease the devices before the kernel starts; fails with the service's words when none is free.

        Without the service no kernel gets a device: nobody would know that it holds one.
        """
        try:
            answer = await self._ask("PUT", {"machine": self.machine})
        except AtelierError as problem:
            raise HTTPError(status_of(problem), f"{problem.message} {problem.hint}", reason=problem.code) from problem
        except httpx.HTTPError as problem:
            words = "The run service, which hands out the accelerators, does not answer. Try again in a moment."
            raise HTTPError(503, words, reason="unreachable") from problem
        prepared = await super().pre_launch(**kwargs)
        gpus = answer["devices"].get(NVIDIA_GPU, [])
        prepared["env"] = {**prepared["env"], "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        self._renewal = asyncio.create_task(self._renew(answer["lifetime_s"] / 3))
        return dict(prepared)

    async def _renew(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._ask("PUT", {"machine": self.machine})
            except (AtelierError, httpx.HTTPError) as problem:
                self.log.warning(
                    "The lease of kernel %s could not be renewed, trying again: %s", self.kernel_id, problem
                )

    async def cleanup(self, restart: bool = False) -> None:
        """Give the devices back, unless the kernel is only started anew; where nobody answers, the lease runs out."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        await super().cleanup(restart=restart)
        if restart:
            return
        try:
            await self._ask("DELETE", None)
        except (AtelierError, httpx.HTTPError) as problem:
            self.log.warning("The lease of kernel %s was not given back, and runs out: %s", self.kernel_id, problem)

    async def _ask(self, method: str, body: dict[str, str] | None) -> dict[str, Any]:
        place = find_endpoint()
        transport = httpx.AsyncHTTPTransport(uds=place.socket_path) if place.socket_path else None
        headers = {"Authorization": f"token {place.token}"}
        async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S, headers=headers) as client:
            response = await client.request(method, f"{place.url}{API}/leases/{self.kernel_id}", json=body)
        if response.status_code >= 400:
            is_json = response.headers.get("content-type", "").startswith("application/json")
            raise error_from(response.status_code, response.json() if is_json else None)
        return dict(response.json()) if response.content else {}
