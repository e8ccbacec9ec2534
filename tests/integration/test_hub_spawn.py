"""User servers: the choice that starts them, what they may do, what they find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from atelier.local.inheritance import INHERITED, inherited
from tests.hub_driver import Person, Platform, running_platform, wait_for

DOCTOR = [sys.executable, "-m", "atelier", "doctor", "--json"]
OF_THE_ADMINISTRATOR = ("HF_TOKEN", "UV_INDEX_PASSWORD", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("spawn"))
    platform.write_image("broken", python="/nowhere/bin/python")
    catalog: dict[str, Any] = {"machines": [{"name": "cpu-small", "cpu": 1, "memory": "256Mi", "price_per_hour": 0.04}]}
    catalog["machines"] += [
        {"name": "gpu-1", "accelerators": {"nvidia.com/gpu": 1}},
        {"name": "huge", "cpu": 4096},
        {"name": "closed", "groups": ["staff"]},
    ]
    (platform.home / "atelier.yaml").write_text(json.dumps({"catalog": catalog}))
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_THE_ADMINISTRATOR:
            patch.setenv(name, "s3cret")
        patch.setenv("no_proxy", "example.invalid")
        with running_platform(platform.folder) as running:
            yield running


@pytest.fixture(scope="module")
def ann(platform: Platform) -> Person:
    """Somebody whose server runs."""
    person = platform.login("ann")
    person.begin_server({"image": "pytorch", "machine": "cpu-small"})
    return person


BAD = [
    ({"image": "nope"}, "There is no image 'nope'."),
    ({"image": "pytroch"}, "Did you mean 'pytorch'?"),
    ({"image": "broken"}, "The image 'broken' is not available. Its interpreter /nowhere/bin/python is not there"),
    ({"machine": "gpu-9"}, "There is no machine 'gpu-9'."),
    ({"machine": "huge"}, "The machine 'huge' is not available. It needs 4096 cores"),
    ({"machine": "gpu-1"}, "The machine 'gpu-1' is not available. No NVIDIA GPU was found on this computer."),
    ({"machine": "closed"}, "You may not use the machine 'closed'."),
    ({"image": ["pytorch"]}, "The server option 'image' is not a text."),
    ({"machine": 3}, "The server option 'machine' is not a text."),
    ({"profile": "x"}, "Unknown server option 'profile'."),
    ({"image": "../../etc"}, "There is no image '../../etc'."),
    (["pytorch"], "user_options must be an object"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda value: json.dumps(value)[:40])
def test_a_bad_choice_is_refused_in_words(platform: Platform, options: object, message: str) -> None:
    answer = platform.login("bea").start_server(options)

    assert answer.status_code == 400
    assert message in answer.json()["message"]


@pytest.mark.parametrize("name", ["l" * 300, "ö" * 45], ids=["letters", "other letters"])
def test_a_name_that_no_folder_could_have_is_refused_in_words(platform: Platform, name: str) -> None:
    person = platform.login(name)
    page = person.client.get("/hub/spawn", params={"opt-machine": "cpu-small"})
    assert page.status_code == 400
    assert "too long for the name of a folder" in page.text
    assert platform.login("bea").api("GET", "users/bea").status_code == 200


def test_bad_choices_never_end_the_hub(platform: Platform) -> None:
    person = platform.login("bea")
    for _ in range(8):
        page = person.client.get("/hub/spawn", params={"opt-image": "nope"})
        assert page.status_code == 400
        assert "There is no image &#39;nope&#39;." in page.text

    assert person.api("GET", "users/bea").status_code == 200


def test_the_picker_shows_what_can_be_had_and_why_not(platform: Platform) -> None:
    page = platform.login("cleo").client.get("/hub/spawn").text

    assert 'value="pytorch"' in page
    assert "0.04 / hour" in page
    assert "256 MiB" in page
    assert "No NVIDIA GPU was found on this computer." in page
    assert "closed" not in page
    huge = page.split('name="machine" value="huge"', 1)[1].split(">", 1)[0]
    assert 'data-summary="huge (4096 CPU, 2 GiB)" data-price="free" disabled' in huge


def test_the_form_starts_what_was_picked(platform: Platform) -> None:
    person = platform.login("dora")
    page = person.client.get("/hub/spawn")
    target = page.text.split('action="', 1)[1].split('"', 1)[0].replace("&amp;", "&")
    sent = person.client.post(target, data={"image": "pytorch", "machine": "cpu-small"})

    assert sent.status_code == 200, sent.text[-3000:]
    person.wait_until_ready()
    environ = person.server_environ()
    assert environ["ATELIER_IMAGE"] == environ["ATELIER_SERVER_IMAGE"] == "pytorch"
    assert person.api("GET", "users/dora").json()["servers"][""]["user_options"] == {
        "image": "pytorch",
        "machine": "cpu-small",
    }
    assert person.api("DELETE", "users/dora/server").status_code in (202, 204)


def test_the_servers_token_may_do_three_things(platform: Platform, ann: Person) -> None:
    token = {"Authorization": f"token {ann.server_environ()['JUPYTERHUB_API_TOKEN']}"}
    scopes = httpx.get(f"{platform.site.hub_api_url}/user", headers=token).json()["scopes"]

    # The last three tell whose token it is, and come with every token.
    assert set(scopes) == {
        "access:servers!server=ann/",
        "access:services!service=atelier",
        "users:activity!user=ann",
        "read:users:activity!user=ann",
        "read:users:groups!user=ann",
        "read:users:name!user=ann",
    }
    assert httpx.get(f"{platform.site.hub_api_url}/users", headers=token).status_code == 403
    assert httpx.post(f"{platform.site.hub_api_url}/users/ann/tokens", headers=token, json={}).status_code == 403


def test_the_services_token_learns_when_a_name_was_created(platform: Platform, ann: Person) -> None:
    token = {"Authorization": f"token {platform.site.secret('service_token')}"}
    told = httpx.get(f"{platform.site.hub_api_url}/users/ann", headers=token).json()

    assert told["created"].endswith("Z")
    assert told["groups"] == []
    assert httpx.delete(f"{platform.site.hub_api_url}/users/ann", headers=token).status_code == 403


def test_kernels_and_terminals_see_the_picked_image_only(platform: Platform, ann: Person) -> None:
    environ = ann.server_environ()
    token = {"Authorization": f"token {environ['JUPYTERHUB_API_TOKEN']}"}
    specs = httpx.get(f"{platform.url}/user/ann/api/kernelspecs", headers=token).json()

    assert list(specs["kernelspecs"]) == ["python3"]
    assert specs["kernelspecs"]["python3"]["spec"]["display_name"] == "Pytorch"
    assert environ["ATELIER_MACHINE"] == "cpu-small"
    assert environ["ATELIER_URL"] == f"{platform.site.service_url}/services/atelier"
    assert environ["PATH"].split(":")[0] == f"{environ['ATELIER_OVERLAY']}/bin"
    assert environ["OMP_NUM_THREADS"] == "1"
    assert "PYTHONPATH" not in environ
    assert not {"CONFIGPROXY_AUTH_TOKEN", "ATELIER_HUB_TOKEN_FILE"} & set(environ)


def test_a_server_gets_what_a_run_gets_of_the_administrators_environment(ann: Person) -> None:
    environ = ann.server_environ()

    assert "s3cret" not in environ.values()
    assert environ["no_proxy"] == "example.invalid"
    assert environ["LOGNAME"] == environ["USER"] == "ann"
    ours = {name for name in environ if name in INHERITED}
    assert ours >= {name for name in inherited(os.environ) if name not in {"PATH", "HOME", "USER", "LOGNAME"}}


def test_the_doctor_in_a_server_looks_at_what_the_service_offers(ann: Person) -> None:
    done = subprocess.run(DOCTOR, env=ann.server_environ(), capture_output=True, timeout=60, check=False)
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["service"]["status"] == "ok"
    assert found["image pytorch"]["status"] == "ok"
    assert "/nowhere/bin/python is not there" in found["image broken"]["text"]
    assert [name for name in found if name == "home" or name.startswith("port")] == []


def test_pip_writes_into_the_overlay_and_cannot_break_the_image(ann: Person, tmp_path: Path) -> None:
    environ = ann.server_environ()
    pip = [f"{environ['ATELIER_OVERLAY']}/bin/pip", "install", "--no-index", "--no-deps"]

    installed = subprocess.run(
        [*pip, _wheel(tmp_path, "smallthing", "1.0")], env=environ, capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    program = ["python", "-c", "import smallthing; print(smallthing.__file__)"]
    where = subprocess.run(program, env=environ, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(environ["ATELIER_OVERLAY"])

    refused = subprocess.run(
        [*pip, _wheel(tmp_path, "numpy", "0.0.1")], env=environ, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "The user requested (constraint) numpy==" in refused.stdout + refused.stderr


def test_the_users_own_home_is_the_root_and_examples_come_once(platform: Platform, ann: Person) -> None:
    environ = ann.server_environ()

    assert environ["HOME"] == str(platform.user_home)
    assert environ["JUPYTERHUB_ROOT_DIR"] == str(platform.user_home)
    assert not (platform.user_home / ".jupyter").exists()


def test_another_user_has_another_home(platform: Platform) -> None:
    person = platform.login("e/v..e")
    assert not person.is_in
    person = platform.login("eve@example.org")
    person.begin_server({})

    assert person.server_environ()["HOME"] == str(platform.home / "homes" / "eve_40example_2eorg")
    assert person.api("DELETE", "users/eve@example.org/server").status_code in (202, 204)


def test_stopping_a_server_ends_what_its_kernels_left(platform: Platform) -> None:
    person = platform.login("fay")
    person.begin_server({})
    stray = subprocess.Popen(["sleep", "1000"], env=person.server_environ(), start_new_session=True)
    person.api("DELETE", "users/fay/server")

    assert wait_for("the stray's end", lambda: stray.poll() is not None)


def test_a_deleted_user_leaves_nothing_to_a_later_one_of_the_same_name(platform: Platform) -> None:
    person = platform.login("gil")
    home = platform.home / "homes" / "gil"
    home.mkdir(parents=True)
    (home / "diary.txt").write_text("mine")
    admin = platform.login("admin", password=platform.site.secret("admin_password"))
    person.start_server({"image": "nope"})  # so that the hub knows a server of this user

    assert admin.api("DELETE", "users/gil").status_code == 204
    assert not home.exists()
    assert [path.read_text() for path in (platform.home / "homes/.deleted").glob("gil-*/diary.txt")] == ["mine"]


def _wheel(folder: Path, name: str, version: str) -> str:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return str(path)
