"""Accelerators of notebook kernels: leased when a kernel starts, from the same stock as the runs', and given back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from atelier.local import processes
from tests.hub_driver import Platform, wait_for

GPU = "nvidia.com/gpu"
SERVICE = "/services/atelier/api/v1"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of one machine with one GPU, of which this computer has one."""
    platform = Platform(tmp_path_factory.mktemp("leases"))
    platform.write_image("pytorch")
    machine = {"name": "gpu-1", "cpu": 0.5, "memory": "256Mi", "accelerators": {GPU: 1}}
    (platform.home / "atelier.yaml").write_text(json.dumps({"catalog": {"machines": [machine]}}))
    platform.process = platform.popen(ATELIER_TEST_GPUS="GPU-test-1")
    lines = [platform.process.stdout.readline() for _ in range(3)]  # type: ignore[union-attr]
    assert lines[2], f"atelier up ended: {platform.process.communicate(timeout=20)}"
    yield platform
    for each in platform.clients:
        each.close()
    platform.stop()
    processes.end(platform.processes, patience_s=2)


@pytest.fixture(scope="module")
def server(platform: Platform) -> Iterator[httpx.Client]:
    """A client with the token of a user server on that machine."""
    ann = platform.login("ann")
    ann.begin_server({"image": "pytorch", "machine": "gpu-1"})
    headers = {"Authorization": f"token {ann.server_environ()['JUPYTERHUB_API_TOKEN']}"}
    with closing(httpx.Client(base_url=platform.url, headers=headers, timeout=60)) as client:
        yield client


def leases(server: httpx.Client) -> dict[str, Any]:
    answer = server.get(f"{SERVICE}/leases")
    answer.raise_for_status()
    return dict(answer.json())


def start_kernel(server: httpx.Client) -> str:
    answer = server.post("/user/ann/api/kernels", json={"name": "python3"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def devices_seen_by(kernel: str) -> str:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if kernel in (entry / "cmdline").read_text():
                pairs = (entry / "environ").read_bytes().decode().split("\0")
                return dict(pair.split("=", 1) for pair in pairs if "=" in pair).get("CUDA_VISIBLE_DEVICES", "all")
        except OSError:
            continue
    return "no process"


def test_a_kernel_holds_the_gpu_and_an_idle_server_does_not(server: httpx.Client) -> None:
    assert leases(server) == {"items": [], "next": None, "free": {GPU: 1}}
    kernel = start_kernel(server)
    assert leases(server)["items"] == [{"kernel": kernel, "device": "GPU-test-1", "resource": GPU}]
    assert leases(server)["free"] == {GPU: 0}
    assert devices_seen_by(kernel) == "GPU-test-1"
    second = server.post("/user/ann/api/kernels", json={"name": "python3"})
    assert second.status_code == 409
    assert "No nvidia.com/gpu is free" in second.text
    assert server.delete(f"/user/ann/api/kernels/{kernel}").status_code == 204
    wait_for("the GPU to be free", lambda: leases(server)["free"] == {GPU: 1})


def test_a_restarted_kernel_keeps_its_gpu(server: httpx.Client) -> None:
    kernel = start_kernel(server)
    assert server.post(f"/user/ann/api/kernels/{kernel}/restart").status_code == 200
    assert leases(server)["items"] == [{"kernel": kernel, "device": "GPU-test-1", "resource": GPU}]
    server.delete(f"/user/ann/api/kernels/{kernel}")
    wait_for("the GPU to be free", lambda: leases(server)["free"] == {GPU: 1})


def test_a_service_that_does_not_answer_keeps_no_kernel_alive_and_gives_no_gpu(
    platform: Platform, server: httpx.Client
) -> None:
    kernel = start_kernel(server)
    service = wait_for("the run service", lambda: platform.pid_of("atelier.service"))
    os.kill(service, signal.SIGSTOP)
    try:
        assert server.delete(f"/user/ann/api/kernels/{kernel}").status_code == 204
        assert devices_seen_by(kernel) == "no process"
        refused = server.post("/user/ann/api/kernels", json={"name": "python3"})
        assert refused.status_code == 503
        assert "does not answer" in refused.text
    finally:
        os.kill(service, signal.SIGCONT)
    wait_for("the service", lambda: server.get(f"{SERVICE}/leases").status_code == 200)
    wait_for("the GPU to be free", lambda: _given_back(server))
    server.delete(f"/user/ann/api/kernels/{start_kernel(server)}")


def _given_back(server: httpx.Client) -> bool:
    """Whether the GPU is free; gives back what would else run out: a request that nobody waited for is served late."""
    held = leases(server)
    for item in held["items"]:
        server.delete(f"{SERVICE}/leases/{item['kernel']}")
    return bool(held["free"] == {GPU: 1})
