"""What users' code inherits from the environment of the platform: one list, for user servers and for runs."""

from __future__ import annotations

from collections.abc import Mapping

INHERITED = (
    # who and where
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"),
    # language and time
    *("LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME", "TZ"),
    # threads of numerical libraries
    *("OMP_NUM_THREADS", "OMP_DYNAMIC", "OMP_PLACES", "OMP_PROC_BIND", "OMP_THREAD_LIMIT", "OMP_WAIT_POLICY"),
    *("OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_MAIN_FREE"),
    *("MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_THREADING_LAYER", "MKL_SERVICE_FORCE_INTEL"),
    # where accelerators and their libraries are
    *("CUDA_HOME", "CUDA_PATH", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    # the way to the network
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    # where packages come from
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST", "PIP_CERT"),
    *("PIP_DEFAULT_TIMEOUT", "PIP_CONFIG_FILE", "PIP_CACHE_DIR", "UV_INDEX_URL", "UV_DEFAULT_INDEX"),
    # by them the tests find what they left running, and make a process die at a place of their choice
    *("TESTS_OF_ATELIER", "ATELIER_CRASH_AT"),
)
"""Names, no prefixes: beside a setting that users need (``PIP_INDEX_URL``) lies a secret (``UV_INDEX_PASSWORD``)."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that users' code gets; no token, and no secret of the administrator's shell."""
    return {name: environ[name] for name in INHERITED if name in environ}
