"""Starts ipykernel in a run: by its path, in the image's interpreter, which need not have this package.

ZeroMQ drops what a subscriber is too slow to take, and a burst of a few thousand printed lines is enough for that. Here
the kernel waits instead.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this file's folder; the kernel puts the notebook's in its place

    import zmq
    from ipykernel.kernelapp import IPKernelApp

    class PatientKernelApp(IPKernelApp):
        """A kernel that is slowed by whoever reads its output, and loses none of it."""

        def init_iopub(self, context: zmq.Context) -> None:  # type: ignore[type-arg]
            """Open the channel with back-pressure; the option is one of sockets that publish, others ignore it."""
            context.setsockopt(zmq.XPUB_NODROP, 1)
            super().init_iopub(context)  # type: ignore[no-untyped-call]

    PatientKernelApp.launch_instance()
