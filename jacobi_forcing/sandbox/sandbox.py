"""Programs of a model, each in a process of its own with nothing around it.

What protects, by what the system offers (`PROTECTIONS`, the first that works is taken):

- namespaces: no network, no other processes, no file but the system's and Python's own, which are
  read only, and a small folder in memory. Needs root, or a kernel that lets users make namespaces.
- bwrap: the same, made by bubblewrap where it is installed, but System V shared memory is not
  bounded. Not for root.
- limits: none of that. Programs see the machine's files and network as their user does, and may
  make shared memory without bound, which stays when they end. Taken only where it is asked for,
  such as inside a container that is itself the protection.

With each of them: limits on processor time and time, memory, size of files and processes (root's
programs run as a user of their own), an environment of a few variables, and whatever a program
starts is killed when it ends. What does not protect: the kernel is the machine's own, and a program
that is written against this sandbox could find the token that says it has passed. It guards the
machine, not the score. Linux only.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Timer
from typing import NamedTuple

from jacobi_forcing.errors import ConfigError

PROTECTIONS = ("namespaces", "bwrap", "limits")
_CHILD = Path(__file__).with_name("child.py")
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",  # its buffers for every core would need more memory than allowed
}
_ADVICE = (
    " Install bubblewrap, or let users make namespaces (sysctl user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns=0). Inside a container that is itself the "
    "protection, pass --sandbox limits."
)
_MOST_REPLY = 65536  # bytes: a program that writes more has found what it should not
_GRACE = 10.0  # seconds that the keeper may take beyond the program's own


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Fields:
        cpu_seconds: Processor time of a process.
        wall_seconds: Time, however little of it is spent working.
        memory_bytes: Address space of a process.
        file_bytes: Largest file; with namespaces, all files together.
        processes: Most processes and threads.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    processes: int = 8


class Outcome(NamedTuple):
    """Whether a program came to its end, and if not, why."""

    passed: bool
    reason: str


class Sandbox:
    """Runs programs under the best protection that works here, or the one that is asked for.

    Args:
        protection: One of PROTECTIONS; "auto" takes namespaces or bwrap.
        limits: What each program may use.

    Raises:
        ConfigError: It cannot be set up; the message says why and what to do.
    """

    def __init__(self, protection: str = "auto", limits: Limits | None = None):
        self.limits = limits or Limits()
        wanted = PROTECTIONS[:2] if protection == "auto" else (protection,)
        problems = {}
        for name in wanted:
            self.protection = name
            problems[name] = self._problem()
            if not problems[name]:
                return
        found = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        advice = "" if protection == "limits" else _ADVICE
        raise ConfigError(f"programs of a model cannot be run safely here ({found}).{advice}")

    @property
    def description(self) -> str:
        """Say which protection is active, in one line."""
        limits = self.limits
        around = {
            "namespaces": "no network, own processes, read-only system files only (namespaces)",
            "bwrap": "no network, own processes, read-only system files only (bwrap); shared "
            "memory is not bounded",
            "limits": "the network and files of its user are open, shared memory is not bounded",
        }[self.protection]
        return (
            f"{around}; {limits.cpu_seconds} s of processor time, {limits.wall_seconds:g} s, "
            f"{limits.memory_bytes >> 20} MiB, files of {limits.file_bytes >> 20} MiB, "
            f"{limits.processes} processes"
        )

    def run(
        self,
        programs: Sequence[str],
        workers: int | None = None,
        on_program: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """Run programs, several at a time; a pass is to end without an exception.

        Args:
            programs: Python sources.
            workers: How many at a time; by default one per processor.
            on_program: Called after each, for progress.
        """

        def run(source: str) -> Outcome:
            outcome = self._run(source)
            on_program()
            return outcome

        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(run, programs))

    def _problem(self) -> str:
        """Try the protection; say what is wrong with it, if anything."""
        if sys.platform != "linux":
            return "needs Linux"
        if self.protection == "bwrap" and os.getuid() == 0:
            return "not for root, whose processes it cannot count"
        if self.protection == "bwrap" and shutil.which("bwrap") is None:
            return "not installed"
        outcome = self._run("import heapq")
        if "ModuleNotFoundError" in outcome.reason:
            return f"{sys.base_prefix}, where Python is, can be read by root only"
        return "" if outcome.passed else outcome.reason

    def _run(self, source: str) -> Outcome:
        token = secrets.token_hex(16)
        job = {"source": source, "token": token, "protection": self.protection}
        job |= asdict(self.limits) | {"folders": _python_folders()}
        with ExitStack() as stack:
            if self.protection == "limits":
                job["folder"] = stack.enter_context(tempfile.TemporaryDirectory())
            process = subprocess.Popen(
                [*self._around(), sys.executable, "-I", "-B", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
            backstop = Timer(self.limits.wall_seconds + _GRACE, _kill, [process])
            backstop.start()
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(job).encode())
                    process.stdin.close()
                replies = process.stdout.read(_MOST_REPLY).splitlines()
            finally:
                backstop.cancel()
                _kill(process)
                message = process.stderr.read()
                process.wait()
                process.stdout.close()
                process.stderr.close()
        return _outcome(replies, message, token)

    def _around(self) -> list[str]:
        """Give the command that stands before Python's own."""
        if self.protection != "bwrap":
            return []
        seen = [
            f for f in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", *_python_folders())
        ]
        shown = [part for folder in seen for part in ("--ro-bind-try", folder, folder)]
        command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", *shown]
        command += ["--ro-bind", str(_CHILD), str(_CHILD), "--proc", "/proc", "--dev", "/dev"]
        command += ["--size", str(self.limits.file_bytes), "--tmpfs", "/tmp"]
        return [*command, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", "/tmp", "--"]


def _python_folders() -> list[str]:
    """Name the folders that Python and its packages live in."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    return sorted(found, key=len)


def _kill(process: subprocess.Popen) -> None:
    """End the keeper, and with it all it keeps."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _outcome(replies: list[bytes], message: bytes, token: str) -> Outcome:
    """Read the first reply; whatever a program adds to it is not believed."""
    try:
        found = json.loads(replies[0])
    except (IndexError, ValueError):
        lines = message.decode(errors="replace").strip().splitlines()
        return Outcome(False, lines[-1] if lines else "ended without a reply")
    if not isinstance(found, dict):
        return Outcome(False, "ended without a reply")
    if found.get("token") == token:
        return Outcome(True, "passed")
    return Outcome(False, str(found.get("reason") or found.get("problem")))
