"""Programs of a model, each in a process of its own with nothing around it.

What protects, by what the system offers (`PROTECTIONS`, the first that works is taken):

- bwrap: no network, no other processes, no file but the system's and what Python imports from,
  which are read only, and a small folder in memory. Made by bubblewrap where it is installed.
- namespaces: the same without bubblewrap. Needs root, or a kernel that lets users make namespaces.
- limits: none of that. Programs see the machine's files and network as their user does. Taken only
  where it is asked for, such as inside a container that is itself the protection.

With each of them: limits on processor time and time, memory, size of files and processes (root's
programs run as a user of their own), no System V shared memory, an environment of a few variables,
and whatever a program starts is killed when it ends. What does not protect: the kernel is the
machine's own, and a program that is written against this sandbox could find the token that says it
has passed. It guards the machine, not the score. Linux only.

What is installed where this runs can be imported by programs. A protection under which it cannot
does not work, and is refused with the cause; see `_CHECK`.
"""

import json
import logging
import os
import re
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
from jacobi_forcing.sandbox.environment import running_environment

logger = logging.getLogger(__name__)

PROTECTIONS = ("bwrap", "namespaces", "limits")
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
_FIRST_USER = 1_000_000_000  # users that nothing on a machine belongs to begin here
# For root no user namespace is made: in it, a program would still be root, whose processes no limit
# counts. The child keeps the rights to become another user and to end that user's processes.
_AS_ROOT = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts")
_AS_ROOT += ("--unshare-cgroup-try", "--cap-drop", "ALL", "--cap-add", "CAP_SETUID")
_AS_ROOT += ("--cap-add", "CAP_SETGID", "--cap-add", "CAP_KILL")

# Run as a program of a model is: everything that is installed is there, and numpy works.
_CHECK = """
import os, sys
for number, file in {modules}:
    path = above = os.path.join(sys.path[number], file)
    if not os.access(path, os.R_OK):
        while not os.path.exists(above):
            above = os.path.realpath(above) if os.path.islink(above) else os.path.dirname(above)
        why = "programs do not see it"
        if not (os.path.isdir(above) and os.access(above, os.X_OK)):
            why = os.path.realpath(above) + " cannot be read by the user that programs run as"
        raise ImportError(os.path.realpath(path) + {installed!r} + why)
import heapq
try:
    {more}
except Exception as error:
    raise ImportError("numpy" + {installed!r} + f"programs cannot import it: {{error!r}}")
"""
# Over-inclusive: names that are no installed modules are passed over.
_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]([\w., \t]+)", re.MULTILINE)
_INSTALLED = " is installed, but "
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
        self._environment = running_environment()
        self._why_not: dict[str, str] = {}  # by package: why it cannot be imported, or nothing
        wanted = PROTECTIONS[:2] if protection == "auto" else (protection,)
        problems = []
        for name in wanted:
            self.protection = name
            problem = self._problem()
            if not problem:
                passed_over = "".join(f" ({one})" for one in problems)
                logger.info("Programs run with %s%s", self.description, passed_over)
                return
            problems.append(f"{name}: {problem}")
        advice = _ADVICE
        if protection == "limits" or any(_INSTALLED in problem for problem in problems):
            advice = ""  # the cause has been named
        raise ConfigError(
            f"programs of a model cannot be run safely here ({'; '.join(problems)}).{advice}"
        )

    @property
    def description(self) -> str:
        """Say which protection is active, in one line."""
        limits = self.limits
        around = f"no network, own processes, only system and Python files ({self.protection})"
        if self.protection == "limits":
            around = "the network and files of its user are open"
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
            outcome = self._run(source, self.limits)
            on_program()
            return outcome

        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            outcomes = list(pool.map(run, programs))
        return list(map(self._with_cause, programs, outcomes))

    def _with_cause(self, source: str, outcome: Outcome) -> Outcome:
        """Say so where a program that failed imports a package that the sandbox keeps from working.

        Every package is tried once, by a program that does nothing but import it.
        """
        if outcome.passed:
            return outcome
        words = {word for line in _IMPORT.findall(source) for word in re.findall(r"\w+", line)}
        for name in sorted(words & self._environment.installed):
            if name not in self._why_not:
                tried = self._run(f"import {name}", self.limits)
                self._why_not[name] = "" if tried.passed else tried.reason
                if not tried.passed:
                    logger.warning(
                        "%s is installed, but programs cannot import it: %s. "
                        "Those that need it count as wrong.",
                        name,
                        tried.reason,
                    )
            if why := self._why_not[name]:
                cause = f"{name} is installed, but programs cannot import it: {why}"
                return Outcome(False, f"{outcome.reason} ({cause})")
        return outcome

    def _problem(self) -> str:
        """Try the protection; say what is wrong with it, if anything."""
        if sys.platform != "linux":
            return "needs Linux"
        if self.protection == "bwrap" and shutil.which("bwrap") is None:
            return "not installed"
        modules = self._environment.modules
        more = "import numpy" if "numpy" in self._environment.installed else "pass"
        check = _CHECK.format(modules=modules, installed=_INSTALLED, more=more)
        try:
            outcome = self._run(check, Limits())  # with time enough on a busy machine
        except OSError as error:
            return str(error)
        return "" if outcome.passed else outcome.reason.removeprefix("raises ImportError: ")

    def _run(self, source: str, limits: Limits) -> Outcome:
        token = secrets.token_hex(16)
        job = {"source": source, "token": token, "protection": self.protection} | asdict(limits)
        job |= {"path": self._environment.path, "shown": self._environment.shown}
        # Nobody else's, so that its processes can be counted.
        job["user"] = _FIRST_USER + secrets.randbelow(_FIRST_USER)
        with ExitStack() as stack:
            if self.protection == "limits":
                job["folder"] = stack.enter_context(tempfile.TemporaryDirectory())
            process = subprocess.Popen(
                [*self._around(limits), sys.executable, "-I", "-B", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
            backstop = Timer(limits.wall_seconds + _GRACE, _kill, [process])
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

    def _around(self, limits: Limits) -> list[str]:
        """Give the command that stands before Python's own."""
        if self.protection != "bwrap":
            return []
        command = ["bwrap", "--die-with-parent", "--new-session"]
        command += ["--unshare-all"] if os.getuid() else _AS_ROOT
        command += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777"]
        command += ["--size", str(limits.file_bytes), "--tmpfs", "/tmp"]
        shown = [*self._environment.shown, str(_CHILD)]  # some of it may lie under /tmp
        for folder in sorted({str(one) for path in shown for one in Path(path).parents} - {"/"}):
            command += ["--perms", "0755", "--dir", folder]
        for path in shown:
            command += ["--ro-bind-try", path, path]
        return [*command, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", "/tmp", "--"]


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
