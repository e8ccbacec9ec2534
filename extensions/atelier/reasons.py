"""Why an attempt ended as it did, or why a run waits: a closed list, each with one sentence and one next action.

It needs nothing but the standard library: the agent writes the same words into the executed notebook.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an attempt ended as it did, or why a run waits. A closed list; the sentences are in `REASON_TEXT`."""

    CODE_ERROR = "code_error"
    IMPORT_ERROR = "import_error"
    MISSING_FILE = "missing_file"
    OUT_OF_MEMORY = "out_of_memory"
    CUDA_OUT_OF_MEMORY = "cuda_out_of_memory"
    DISK_FULL = "disk_full"
    DISK_QUOTA = "disk_quota"
    KILLED = "killed"
    DEADLINE = "deadline"
    QUEUE_DEADLINE = "queue_deadline"
    STALLED = "stalled"
    CANCELLED_BY_USER = "cancelled_by_user"
    PREEMPTED = "preempted"
    AGENT_LOST = "agent_lost"
    REQUIREMENTS = "requirements"
    KERNEL_MISSING = "kernel_missing"
    START_FAILED = "start_failed"
    WAITS_FOR_USER_LIMIT = "waits_for_user_limit"
    WAITS_FOR_ACCELERATOR = "waits_for_accelerator"
    WAITS_FOR_OWN_KERNEL = "waits_for_own_kernel"
    WAITS_FOR_CAPACITY = "waits_for_capacity"


REASON_TEXT: dict[Reason, tuple[str, str]] = {
    Reason.CODE_ERROR: ("The code raised an error.", "Read the traceback in the log, mend the code and submit again."),
    Reason.IMPORT_ERROR: (
        "A module that the code imports is not in the image.",
        "Put the package into a requirements.txt beside the work, or pick another image.",
    ),
    Reason.MISSING_FILE: (
        "A file that the code opens is not there.",
        "Give the file along with --include, or read it from a data root.",
    ),
    Reason.OUT_OF_MEMORY: ("It used more memory than its machine has.", "Pick a larger machine or smaller batches."),
    Reason.CUDA_OUT_OF_MEMORY: ("The GPU's memory was not enough.", "Use a smaller batch or a GPU with more memory."),
    Reason.DISK_FULL: ("The disk is full.", "Free some space, or write less, and submit again."),
    Reason.DISK_QUOTA: (
        "The run wrote more to the disk than one run may.",
        "Write less, or remove files as the run goes on; an administrator can allow more.",
    ),
    Reason.KILLED: ("The run's process was killed from outside.", "Submit again; ask whoever ended it if it recurs."),
    Reason.DEADLINE: ("The run reached its time limit.", "Give a longer --timeout."),
    Reason.QUEUE_DEADLINE: ("The run waited longer than its queue limit.", "Give a longer --queue-timeout."),
    Reason.STALLED: (
        "The run gave no sign of life for too long.",
        "Look at the log's end; give a longer stall limit if it just computes.",
    ),
    Reason.CANCELLED_BY_USER: ("The run was cancelled.", "Submit again when you want it."),
    Reason.PREEMPTED: ("The run had to give its place away.", "It is queued again, to go on from its checkpoint."),
    Reason.AGENT_LOST: (
        "The run's supervising process died, and its work ended with it.",
        "Submit again, or give --retries so that this happens by itself.",
    ),
    Reason.REQUIREMENTS: (
        "The packages in requirements.txt could not be installed.",
        "Read the installer's words in the log.",
    ),
    Reason.KERNEL_MISSING: ("The notebook's kernel could not be started.", "Pick an image that has a Python kernel."),
    Reason.START_FAILED: ("The run could not be started.", "Try again; run 'atelier doctor' if it recurs."),
    Reason.WAITS_FOR_USER_LIMIT: ("Your other runs use all that one user may.", "Wait for one to end, or cancel one."),
    Reason.WAITS_FOR_ACCELERATOR: (
        "The accelerators of this kind are in use, or kept for a run that came before.",
        "Wait, or pick another machine.",
    ),
    Reason.WAITS_FOR_OWN_KERNEL: (
        "A notebook kernel of yours holds the accelerator that this run needs.",
        "Shut that kernel down, or wait until it ends.",
    ),
    Reason.WAITS_FOR_CAPACITY: (
        "The computer is busy with other runs.",
        "It starts by itself once there is room: cancel a run of yours that you no longer need.",
    ),
}
"""Reason → (one plain sentence, one next action)."""

RETRYABLE = frozenset(
    {
        Reason.AGENT_LOST,
        Reason.KILLED,
        Reason.CODE_ERROR,
        Reason.STALLED,
        Reason.START_FAILED,
        Reason.PREEMPTED,
        Reason.OUT_OF_MEMORY,
        Reason.CUDA_OUT_OF_MEMORY,
        Reason.DISK_FULL,
    }
)
"""Reasons after which a run with retries left is tried again, unless its spec names others."""

ANY_REASON = "any"
"""Names all of `RETRY_CHOICES` in a spec."""

RETRY_CHOICES = tuple(
    reason
    for reason in Reason
    if not reason.value.startswith("waits_")
    and reason not in {Reason.DEADLINE, Reason.QUEUE_DEADLINE, Reason.CANCELLED_BY_USER, Reason.PREEMPTED}
)
"""Reasons that a spec may name to be tried again after.

No time is left after a deadline, a cancelled run is not wanted, and one that gave its place away comes again anyway.
"""
