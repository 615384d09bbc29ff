"""The process that a program of a model runs in; it is a program too, started by `Sandbox`.

    python -I child.py < job.json

Three processes, each the child of the one before. The *keeper* makes the namespaces, waits, and
ends what is left; the *first* of the new process namespace builds the file system that the program
sees; the *program* gives up all rights, is given its limits, and runs. It writes the job's token
when it has come to its end, and otherwise why it has not: whatever else ends it, no token is a
failure.
"""

import ctypes
import errno
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import types
from contextlib import suppress

_NEW_USERS = 0x10000000
# Of mounts, hosts, IPC, processes and network.
_NEW = 0x20000 | 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000
_BIND, _RECURSIVE, _PRIVATE, _MOVE = 0x1000, 0x4000, 0x40000, 0x2000
_NOSUID, _NODEV = 2, 4
_SET_ATTRIBUTES, _ON_ALL_BELOW, _READ_ONLY = 442, 0x8000, 1
_DEATH_SIGNAL, _NO_NEW_RIGHTS, _ADOPTS, _FILTER_CALLS = 1, 38, 36, 22
_CAPABILITIES_VERSION = 0x20080522

_NOBODY = 65534
_BY_SIGNAL = 128  # and its number: a status of ours that tells one of a child
_DEVICES = ("null", "zero", "full", "random", "urandom")
_FOLDER = "/tmp"  # where a program works, with namespaces of its own

# By architecture: what the kernel calls it, and shmget, msgget and memfd_create.
_SHARING = {
    "x86_64": (0xC000003E, (29, 68, 319)),
    "aarch64": (0xC00000B7, (194, 186, 279)),
    "riscv64": (0xC00000F3, (194, 186, 279)),
}
_OTHER_ABI = 0x40000000  # numbers from here on are those of x32

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    """Call a function of the C library; raise OSError where it fails."""
    if getattr(libc, name)(*args) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source, target, kind=None, flags=0, options=None):
    """Mount `source` on `target`."""
    texts = [
        None if text is None else os.fsencode(text) for text in (source, target, kind, options)
    ]
    call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])


def keep(job, reply):
    """Run the job in a child; end whatever it leaves behind."""
    if job["protection"] == "namespaces":
        unshare()
    call("prctl", _ADOPTS, 1, 0, 0, 0)  # what a program abandons becomes a child of this process
    first = os.fork()
    if first == 0:
        try:
            call("prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            if job["protection"] == "namespaces":
                build_root(job["shown"], job["file_bytes"])
                os._exit(pass_on(run, job, reply))
            run(job, reply)
        except BaseException as error:
            reply(problem=named(error))
        os._exit(1)
    its_end = select.poll()
    its_end.register(os.pidfd_open(first), select.POLLIN)
    if its_end.poll(1000 * job["wall_seconds"]):
        reply(reason=how_ended(os.waitpid(first, 0)[1]))
    else:
        reply(reason="ran out of time")
    end_all()


def pass_on(run, *args):
    """Run the program as a child of the first process, which inherits orphans; give its status."""
    program = os.fork()
    if program == 0:
        run(*args)
    while True:
        pid, status = os.wait()
        if pid == program:
            how = os.waitstatus_to_exitcode(status)
            return how if how >= 0 else _BY_SIGNAL - how


def how_ended(status):
    """Say why a program ended that has not said so itself."""
    how = os.waitstatus_to_exitcode(status)
    number = -how if how < 0 else how - _BY_SIGNAL
    if number == signal.SIGXCPU:
        return "ran out of processor time"
    return f"was ended by signal {number}" if number > 0 else "ended before its end"


def end_all():
    """Kill all descendants. With processes of their own, all die with the first of them."""
    while True:
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def descendants(ancestor):
    """Find the processes that descend from one."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{name}/stat") as file:
            parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    found = [ancestor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def unshare():
    """Leave the machine's network, processes, mounts and names; become nobody if not root."""
    user, group = os.getuid(), os.getgid()
    call("unshare", _NEW | (_NEW_USERS if user else 0))
    if user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{_NOBODY} {user} 1"),
            ("gid_map", f"{_NOBODY} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def build_root(shown, file_bytes):
    """Make a file system of what is shown, read only, and a small /tmp, where some may be shown."""
    mount(None, "/", flags=_RECURSIVE | _PRIVATE)
    root = "/sys"  # a place to build it; what is there is hidden from here on
    mount("root", root, "tmpfs", _NOSUID | _NODEV, "mode=755,size=64k")
    for folder in ("/proc", _FOLDER):
        os.makedirs(root + folder)
    mount("tmp", root + _FOLDER, "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={file_bytes}")
    for path in filter(os.path.exists, [*shown, *(f"/dev/{name}" for name in _DEVICES)]):
        show(path, root + path)
    with suppress(OSError):  # in containers that hide parts of theirs: then there is none
        mount("proc", root + "/proc", "proc", _NOSUID | _NODEV)
        protect(root + "/proc")
    protect(root)
    os.chdir(root)
    mount(root, "/", flags=_MOVE)
    os.chroot(".")


def show(path, target):
    """Let a file or folder be seen, and all below it, read only."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        open(target, "a").close()
    mount(path, target, flags=_BIND | _RECURSIVE)
    protect(target, _ON_ALL_BELOW)


def protect(target, flags=0):
    """Make a mount read only, without set-user-id programs."""
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY | _NOSUID, 0, 0, 0)
    number = ctypes.c_long(_SET_ATTRIBUTES)
    call("syscall", number, -1, os.fsencode(target), flags, attributes, 32)


def run(job, reply):
    """Give up all rights and run the program."""
    os.chdir(_FOLDER if job["protection"] != "limits" else job["folder"])
    processes, opened = job["processes"], {}
    if os.getuid() == 0:
        user = job["user"]
        if job["protection"] == "limits":
            os.chown(".", user, user)
            opened = open_folders(job["path"])
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    elif job["protection"] == "limits":
        processes += tasks_of(os.getuid())  # what else the user runs counts too
    sys.path[:] = job["path"]
    go_round({path: place for path, place in opened.items() if not os.path.exists(path)})
    none = (ctypes.c_uint32 * 6)()
    call("capset", (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0), none)
    call("prctl", _NO_NEW_RIGHTS, 1, 0, 0, 0)
    bar_sharing()
    for kind, most in (
        (resource.RLIMIT_AS, job["memory_bytes"]),
        (resource.RLIMIT_FSIZE, job["file_bytes"]),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    seconds = job["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    module = types.ModuleType("answer")  # not __main__: what is only for scripts does not run
    sys.modules["answer"] = module
    sys.argv = ["answer.py"]
    try:
        exec(compile(job["source"], "<answer>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # SystemExit too: whoever leaves early has not passed
        reply(reason=f"raises {named(error)}")
        os._exit(1)
    reply(token=job["token"])
    os._exit(0)


def open_folders(paths):
    """Open folders; name them so that nobody needs to search those above."""
    found = {}
    for path in filter(os.path.isdir, paths):
        found[path] = f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY)}"
    return found


def go_round(places):
    """Import from other names of folders, the rest of packages that are imported already too."""

    def other(path):
        above = [one for one in places if path == one or path.startswith(f"{one}/")]
        longest = max(above, key=len, default="")
        return places.get(longest, "") + path[len(longest) :]

    sys.path[:] = map(other, sys.path)
    for module in list(sys.modules.values()):
        if hasattr(module, "__path__"):
            module.__path__ = list(map(other, module.__path__))


def bar_sharing():
    """Let no shared memory or messages be made: no limit of a program counts them."""
    machine = os.uname().machine
    if machine not in _SHARING:
        raise OSError(f"system calls of {machine} are not known")
    architecture, calls = _SHARING[machine]
    load, is_equal, is_least, end = 0x20, 0x15, 0x35, 0x06  # of the kernel's packet filter
    checks = [(is_least, _OTHER_ABI), *((is_equal, number) for number in calls)]
    code = [(load, 0, 0, 4), (is_equal, 0, len(checks) + 2, architecture), (load, 0, 0, 0)]
    # A check that is met jumps over those that follow and over the end that allows.
    code += [(kind, len(checks) - i, 0, value) for i, (kind, value) in enumerate(checks)]
    code += [(end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x50000 | errno.EPERM)]
    lines = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = struct.pack("HP", len(code), ctypes.addressof(lines))
    call("prctl", _FILTER_CALLS, 2, ctypes.create_string_buffer(program), 0, 0)


def tasks_of(user):
    """Count a user's processes and threads."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def named(error):
    """Describe an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}".removesuffix(": ")


def main():
    """Read the job; answer on a copy of standard output that programs do not print to."""
    os.umask(0o022)  # a caller's stricter one would close the folders that lead to what is shown
    job = json.load(sys.stdin)
    answers = os.dup(1)
    empty = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(empty, number)

    def reply(**found):
        os.write(answers, json.dumps(found).encode() + b"\n")

    try:
        keep(job, reply)
    except BaseException as error:
        reply(problem=named(error))


if __name__ == "__main__":
    main()
