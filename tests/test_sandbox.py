"""What a program of a model may not do, tried: none gets through, none takes the caller down."""

import json
import logging
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from jacobi_forcing.errors import ConfigError
from jacobi_forcing.sandbox import PROTECTIONS, Limits, Sandbox
from jacobi_forcing.sandbox.environment import running_environment

# Time enough for a second of work on a busy machine; what waits for its end asks for less.
LIMITS = Limits(cpu_seconds=1, wall_seconds=15, memory_bytes=512 << 20, file_bytes=1 << 20)
USER = 54321  # nobody's


@cache
def opened(protection):
    try:
        return Sandbox(protection, LIMITS)
    except ConfigError as error:
        return str(error)


def make(protection):
    found = opened(protection)
    return pytest.skip(found) if isinstance(found, str) else found


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
    """Name all processes that a sandbox has left behind; those of tests beside this one end."""
    end = time.monotonic() + 30
    found = {path: line for path, line in command_lines() if b"sandbox/child.py" in line}
    while found and time.monotonic() < end:
        time.sleep(0.01)
        found = {path: line for path, line in command_lines() if found.get(path) == line}
    return found


def command_lines():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield folder, (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


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
        ("x = 1\0", "source code string cannot contain null bytes"),
        ("raise BaseException('a\\nb')", "raises BaseException: a b"),
        ("import sys\nsys.exit(0)", "raises SystemExit: 0"),
        ("import os\nos._exit(0)", "ended before its end"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "was ended by signal 15"),
        ("import ctypes\nctypes.string_at(0)", "was ended by signal 11"),
        ("def f():\n    f()\nf()", "raises RecursionError"),
        ("while True: pass", "ran out of processor time"),
        ("try:\n    while True: pass\nexcept BaseException: pass", "ran out of processor time"),
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


def test_a_program_that_waits_runs_out_of_time(sandbox, monkeypatch):
    monkeypatch.setattr(sandbox, "limits", replace(LIMITS, wall_seconds=1.0))
    begin = time.monotonic()
    assert run(sandbox, "import time\ntime.sleep(1000)") == (False, "ran out of time")
    assert time.monotonic() - begin >= 1
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
    assert time.monotonic() - begin < LIMITS.wall_seconds
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
        sysconfig.get_path("purelib") + "/n",
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


def test_no_shared_memory_is_beside_the_limit(sandbox):
    source = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
PRIVATE, MAKE, DENIED = 0, 0o1600, 1
for call in (lambda: libc.shmget(PRIVATE, ctypes.c_size_t(1 << 20), MAKE),
             lambda: libc.msgget(PRIVATE, MAKE), lambda: libc.memfd_create(b"x", 0)):
    assert call() == -1
    assert ctypes.get_errno() == DENIED
"""
    assert run(sandbox, source) == (True, "passed")


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


def test_auto_says_once_what_runs_and_what_does_not(monkeypatch, caplog):
    first, second = map(opened, PROTECTIONS[:2])
    caplog.clear()
    caplog.set_level(logging.INFO, "jacobi_forcing")
    works = [one.protection for one in (first, second) if not isinstance(one, str)]
    if not works:
        pytest.skip(first)
    assert Sandbox().protection == works[0]
    (line,) = caplog.messages
    assert f"({works[0]})" in line
    if isinstance(second, str):
        pytest.skip(second)
    caplog.clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert Sandbox().protection == "namespaces"
    (line,) = caplog.messages
    assert "(namespaces)" in line
    assert line.endswith("(bwrap: not installed)")


def test_what_is_hidden_from_programs_is_no_wrong_answer(monkeypatch, closed):
    """A sandbox that hides a package refuses to begin, and names it."""
    here = running_environment()
    packages = sysconfig.get_path("purelib")
    monkeypatch.setattr(
        "jacobi_forcing.sandbox.sandbox.running_environment",
        lambda: here._replace(shown=[one for one in here.shown if not packages.startswith(one)]),
    )
    with pytest.raises(ConfigError, match=closed.protection) as refused:
        Sandbox(closed.protection)
    seen = "is installed, but programs do not see it"
    assert seen in str(refused.value) or "No such file" in str(refused.value)


def test_numpy_that_cannot_be_imported_in_the_sandbox_is_a_refusal(sandbox, monkeypatch, folder):
    (folder / "numpy.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    running_environment.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"numpy is installed, but .*ZeroDivisionError"):
            Sandbox(sandbox.protection)
    finally:
        running_environment.cache_clear()


@pytest.mark.skipif(os.getuid() != 0, reason="programs of other users run as themselves")
def test_packages_that_only_root_can_read_are_named(sandbox, monkeypatch, folder):
    (folder / "locked").mkdir()
    (folder / "locked" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    running_environment.cache_clear()
    try:
        assert run(Sandbox(sandbox.protection), "import locked").passed
        (folder / "locked").chmod(0o700)
        named = f"{folder}/locked cannot be read by the user that programs run as[^.]*[.]$"
        with pytest.raises(ConfigError, match=named):
            Sandbox(sandbox.protection)
    finally:
        running_environment.cache_clear()


def test_a_strict_umask_hides_nothing(sandbox):
    before = os.umask(0o077)
    try:
        assert run(sandbox, "import numpy, sympy") == (True, "passed")
    finally:
        os.umask(before)


def write_package(folder, name, text=""):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"from {name} import part\n{text}")
    (folder / name / "part.py").touch()
    return folder / name


def build_environment(root):
    """Make an environment with packages of every kind; name its Python, variables and secrets.

    The base Python and the environment are reached through links, the environment is a folder with
    other things in it, and each package lies where another kind of installation puts it.
    """
    root.joinpath("base").symlink_to(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    options = ["--without-pip", "--system-site-packages"]  # which those of the user are among
    command = [root / "base" / "bin" / version, "-m", "venv", *options, root / "real"]
    subprocess.run(command, check=True)
    root.joinpath("my project").symlink_to("real")
    packages = root / "real" / "lib" / version / "site-packages"
    write_package(packages, "plain", "import subprocess, sqlite3")
    # As uv links into its cache, file by file.
    for file in write_package(root / "cache" / "1f", "linked").iterdir():
        packages.joinpath("linked").mkdir(exist_ok=True)
        packages.joinpath("linked", file.name).symlink_to(file)
    packages.joinpath("whole").symlink_to(write_package(root / "cache" / "2f", "whole"))
    # Editable installs: a folder on the path, and as setuptools does it.
    write_package(root / "source", "editable")
    packages.joinpath("editable.pth").write_text(f"{root}/source\n")
    mapped = write_package(root / "mapped", "mapped")
    packages.joinpath("__editable___mapped_finder.py").write_text(f"""
import sys, importlib.util
MAPPING = {{"mapped": {str(mapped)!r}}}
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "mapped":
            return importlib.util.spec_from_file_location(name, MAPPING[name] + "/__init__.py",
                                                          submodule_search_locations=[MAPPING[name]])
sys.meta_path.append(Finder)
""")
    packages.joinpath("mapped.pth").write_text("import __editable___mapped_finder\n")
    # Of PYTHONPATH, and what `pip install --target` and `--user` make.
    write_package(root / "modules", "module")
    write_package(root / "target", "targeted")
    (root / "target" / "targeted-1.dist-info").mkdir()
    write_package(root / "user" / "lib" / version / "site-packages", "private")
    variables = {"PYTHONPATH": f"{root}/modules:{root}/target", "PYTHONUSERBASE": f"{root}/user"}
    write_package(packages, "homesick", f"open({str(root)!r} + '/secret')")
    secrets = [one / "secret" for one in (root, root / "real", root / "source", root / "modules")]
    for secret in secrets:
        secret.write_text("x")
    return root / "my project" / "bin" / "python", variables, secrets


NAMES = ["plain", "linked", "whole", "editable", "mapped", "module", "targeted", "private"]
IN_ENVIRONMENT = """
import json, logging, sys
source, protections, programs = json.load(sys.stdin)
sys.path.insert(0, source)
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.sandbox import Sandbox
logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
found = {}
for protection in protections:
    try:
        found[protection] = Sandbox(protection).run(programs, workers=1)
    except ConfigError as error:
        found[protection] = str(error)
print(json.dumps(found))
"""


@pytest.mark.parametrize(("place", "mode"), [("/tmp", 0o700), ("/dev/shm", 0o755)])
def test_what_is_installed_is_there_wherever_it_lies(place, mode):
    protections = [one for one in PROTECTIONS if not isinstance(opened(one), str)]
    if not protections or not os.access(place, os.W_OK):
        pytest.skip(f"no sandbox here, or {place} cannot be written")
    with tempfile.TemporaryDirectory(dir=place, prefix="of a user ") as name:
        Path(name).chmod(mode)
        python, variables, secrets = build_environment(Path(name))
        reads = f"for path in {list(map(str, secrets))}:\n    try: open(path)\n"
        reads += "    except OSError: continue\n    raise ValueError(path)"
        imports = "".join(f"import {one}, {one}.part\n" for one in NAMES)
        programs = [imports, reads, "import homesick, os", "import homesick as os\nassert 0"]
        result = subprocess.run(
            [python, "-c", IN_ENVIRONMENT],
            input=json.dumps([str(Path(__file__).parents[1]), protections, programs]),
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
    assert list(found) == protections
    if "limits" in found and os.getuid() == 0 and mode == 0o700:  # and links lead past the folder
        assert f"{name} cannot be read by the user" in found.pop("limits")
    for protection, outcomes in found.items():
        there, secret, first, second = outcomes
        assert there == [True, "passed"], protection
        if protection != "limits":
            assert secret == [True, "passed"]
            for outcome in (first, second):
                assert "homesick is installed, but programs cannot import it" in outcome[1]
    num_closed = len([one for one in protections if one != "limits"])
    assert result.stderr.count("homesick is installed, but programs cannot") == num_closed


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
