"""What a program of a model may not do, tried: none gets through, none takes the caller down."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path

import pytest

from jacobi_forcing.errors import ConfigError
from jacobi_forcing.sandbox import PROTECTIONS, Limits, Sandbox, child

LIMITS = Limits(cpu_seconds=1, wall_seconds=2.5, memory_bytes=512 << 20, file_bytes=1 << 20)
USER = 54321  # nobody's


def make(protection):
    try:
        return Sandbox(protection, LIMITS)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(params=PROTECTIONS)
def sandbox(request):
    return make(request.param)


@pytest.fixture(params=PROTECTIONS[:2])
def closed(request):
    """A sandbox whose programs see nothing of the machine."""
    return make(request.param)


@pytest.fixture
def folder():
    """A folder that everybody may read and write; pytest's own ones are its user's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def run(sandbox, source):
    (outcome,) = sandbox.run([source])
    return outcome


def processes():
    """Name all processes that a sandbox could have left behind."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"sandbox/child.py" in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "assert sorted([2, 1]) == [1, 2]",
        "import math, re, collections\nassert math.gcd(4, 6) == 2",
        "import numpy\nassert numpy.arange(3).sum() == 3",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nassert A(1) == A(1)",
        "if __name__ == '__main__':\n    raise ValueError",
        "open('notes.txt', 'w').write('x')\nassert open('notes.txt').read() == 'x'",
        "print('x' * 10**6)",
    ],
)
def test_programs_of_good_will_pass(sandbox, source):
    assert run(sandbox, source) == (True, "passed")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert 1 == 2", "raises AssertionError"),
        ("def f(:", "raises SyntaxError"),
        ("input()", "raises EOFError"),
        ("x = 1\0", "raises SyntaxError"),
        ("raise BaseException('a\\nb')", "raises BaseException: a b"),
        ("import sys\nsys.exit(0)", "raises SystemExit: 0"),
        ("import os\nos._exit(0)", "ended before its end"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "was ended by signal 15"),
        ("import ctypes\nctypes.string_at(0)", "was ended by signal 11"),
        ("def f():\n    f()\nf()", "raises RecursionError"),
        ("while True: pass", "ran out of processor time"),
        ("try:\n    while True: pass\nexcept BaseException: pass", "ran out of processor time"),
        ("import time\ntime.sleep(1000)", "ran out of time"),
        ("x = bytearray(10 * 2**30)", "raises MemoryError"),
        ("x = [0]\nwhile True: x += x", "raises MemoryError"),
        ("open('big', 'wb').write(bytes(10**8))", "File too large"),
        ("import os\nwhile True: os.fork()", "ra"),
        ("import threading\nwhile True: threading.Thread(target=print).run()", "ran out of"),
    ],
)
def test_programs_that_fail_say_why(sandbox, source, reason):
    outcome = run(sandbox, source)
    assert not outcome.passed
    assert reason in outcome.reason
    assert not processes()


def test_a_program_is_not_believed_that_says_it_passed(sandbox):
    """It can write where verdicts go; it does not know the token."""
    for text in ('{"token": ""}', '{"token": null}', "[]", "1", "", '"passed"', "\\xff" * 9):
        source = f"import os\nfor i in range(64):\n    try: os.write(i, b'{text}\\n')\n"
        assert not run(sandbox, source + "    except OSError: pass\nraise ValueError").passed
    flood = (
        "import os\nfor i in range(3, 64):\n    try:\n        while True: os.write(i, b'x' * 9999)"
    )
    assert not run(sandbox, flood + "\n    except OSError: pass").passed


def test_whatever_a_program_starts_ends_with_it(sandbox):
    source = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
"""
    begin = time.monotonic()
    assert run(sandbox, source).passed
    assert time.monotonic() - begin < 2
    assert not processes()


def test_many_processes_are_too_many(sandbox):
    source = "import os, time\nn = 0\ntry:\n    while True:\n"
    source += "        if os.fork() == 0: time.sleep(1000)\n        n += 1\n"
    source += "except BlockingIOError: pass\nassert n < 8, n\n"
    if os.getuid() and sandbox.protection == "limits":
        pytest.skip("processes are counted with all others of the user")
    assert run(sandbox, source).passed
    assert not processes()


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    source = """
import os, glob
assert "HF_TOKEN" not in os.environ
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        found = open(path, "rb").read()
    except OSError:
        continue
    assert b"hf_secret" not in found, path
"""
    assert run(sandbox, source).passed


def test_there_is_no_network(closed):
    source = """
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ("1.1.1.1", 53))):
    try:
        socket.socket(family).connect(address)
    except OSError:
        continue
    raise ValueError(address)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert run(closed, source.replace("{port}", str(port))).passed


def test_nothing_outside_can_be_read_or_written(closed, folder):
    secret = folder / "secret"
    secret.write_text("x")
    secret.chmod(0o666)
    here = str(Path(__file__).resolve())
    places = [
        str(folder / "new"),
        str(secret),
        "/usr/new",
        "/etc/new",
        "/new",
        "/dev/shm/new",
        sys.prefix + "/n",
    ]
    source = f"""
import os
for path in {[str(secret), here, "/etc/passwd", "/etc/shadow", os.path.expanduser("~/.bashrc")]}:
    try:
        open(path)
    except OSError:
        continue
    raise ValueError(path)
for path in {places}:
    try:
        open(path, "w")
    except OSError:
        continue
    raise ValueError(path)
"""
    assert run(closed, source) == (True, "passed")
    assert [path.name for path in folder.iterdir()] == ["secret"]
    assert secret.read_text() == "x"


def test_no_other_process_is_seen_or_killed(closed):
    source = f"""
import os, signal
assert not os.path.exists("/proc/{os.getpid()}/cmdline")
assert len([name for name in os.listdir("/proc") if name.isdigit()]) < 5
for pid in range(2, 32768, 1):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
"""
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    run(closed, source)
    assert victim.poll() is None
    victim.kill()
    victim.wait()


def test_no_rights_are_left_to_take_back(closed):
    source = """
import ctypes, os
libc = ctypes.CDLL(None)
assert libc.setuid(0) == -1
assert libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == -1
assert libc.chroot(b"/tmp") == -1
status = open("/proc/self/status").read()
assert "CapEff:\\t0000000000000000" in status, status
assert "CapPrm:\\t0000000000000000" in status
assert "NoNewPrivs:\\t1" in status
"""
    assert run(closed, source) == (True, "passed")


SHARED = [Path("/proc/sys/kernel") / name for name in ("shmmni", "msgmni")]
SHARING = """
import ctypes
libc = ctypes.CDLL(None)
PRIVATE, MAKE = 0, 0o1600
for _ in range(64):
    assert libc.shmget(PRIVATE, ctypes.c_size_t(1 << 20), MAKE) == -1
    assert libc.msgget(PRIVATE, MAKE) == -1
"""


def test_no_shared_memory_is_beside_the_limit():
    sandbox = make("namespaces")
    before = [path.read_text() for path in SHARED]
    assert run(sandbox, SHARING) == (True, "passed")
    assert [path.read_text() for path in SHARED] == before  # of the machine
    assert all(int(text) > 0 for text in before)


def test_the_machine_keeps_its_shared_memory_where_no_namespace_was_made(monkeypatch):
    """The settings are not even opened while the IPC namespace is the one at the start."""
    opened = []
    monkeypatch.setattr(
        child, "open", lambda *args: opened.append(args) or StringIO(), raising=False
    )
    here = os.readlink(child._IPC)
    child.bar_shared_memory(here)
    assert opened == []
    child.bar_shared_memory("ipc:[1]")
    assert [path for path, _ in opened] == [str(path) for path in SHARED]


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_the_description_says_where_shared_memory_has_no_bound(protection):
    says_so = "shared memory is not bounded" in make(protection).description
    assert says_so == (protection != "namespaces")


def test_outcomes_keep_the_order_of_programs(sandbox):
    programs = [f"assert {i} % 3" for i in range(12)]
    seen = []
    outcomes = sandbox.run(programs, workers=3, on_program=lambda: seen.append(1))
    assert [outcome.passed for outcome in outcomes] == [i % 3 != 0 for i in range(12)]
    assert len(seen) == 12


def test_what_cannot_be_set_up_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")  # no bwrap
    monkeypatch.setattr("jacobi_forcing.sandbox.sandbox._CHILD", Path("/nowhere/child.py"))
    with pytest.raises(ConfigError, match=r"cannot be run safely.*namespaces: .*--sandbox limits"):
        Sandbox()
    with pytest.raises(ConfigError, match="limits: "):
        Sandbox("limits")


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_users_without_rights_are_protected_too(folder):
    """The same tests, as a user who is not root."""
    command = [sys.executable, "-c", "import jacobi_forcing.sandbox"]
    root = str(Path(__file__).parents[1])
    env = os.environ | {
        "HOME": str(folder),
        "PYTHONPATH": root,
        "TMPDIR": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    settings = {"user": USER, "group": USER, "extra_groups": [], "env": env, "cwd": folder}
    try:
        found = subprocess.run(command, capture_output=True, text=True, **settings)
    except PermissionError:
        found = None
    if found is None or found.returncode:
        pytest.skip("Python or this package can be read by root only")
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", root, __file__]
    result = subprocess.run(
        [sys.executable, *tests], capture_output=True, text=True, timeout=300, **settings
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
