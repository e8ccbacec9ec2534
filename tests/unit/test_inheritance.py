"""A run gets what it needs of the administrator's environment, and none of its secrets; for user servers see hub."""

from __future__ import annotations

from pathlib import Path

from atelier.service.backends import Key
from atelier.service.backends.local import agent_environment

NAMES_OF_SECRETS = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "UV_INDEX_PASSWORD", "UV_INDEX_CORP_PASSWORD", "UV_PUBLISH_TOKEN"),
    *("PIP_KEYRING_PROVIDER", "SSH_AUTH_SOCK", "NVIDIA_API_KEY", "AWS_SECRET_ACCESS_KEY", "JUPYTERHUB_API_TOKEN"),
    *("CONFIGPROXY_AUTH_TOKEN", "ATELIER_HUB_TOKEN_FILE", "SSL_KEY_PASSWORD", "PYTHONPATH", "ATELIER_HOME"),
)
NEEDED = (
    *("PATH", "HOME", "LANG", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH", "XDG_CACHE_HOME"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_DEFAULT_TIMEOUT"),
    *("PIP_CONFIG_FILE", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "TESTS_OF_ATELIER"),
)


def test_an_agent_inherits_what_it_needs_and_no_secret() -> None:
    shell = dict.fromkeys(NEEDED, "needed") | dict.fromkeys(NAMES_OF_SECRETS, "s3cret")
    given = agent_environment(shell, Key("r-abcdefghij", 2), Path("/home/run/attempts/r-abcdefghij/2"))

    assert [name for name in NEEDED if given.get(name) != "needed"] == []
    assert "s3cret" not in given.values()
    assert given["ATELIER_ATTEMPT_KEY"] == "r-abcdefghij/2"
    assert given["ATELIER_ATTEMPT_PLACE"] == "/home/run/attempts/r-abcdefghij/2"
