"""What of this machine a program must see to import what is installed in the running environment.

Wherever the environment lies, and however it was made: a virtual environment on top of a Python
that lies elsewhere, `--system-site-packages`, packages of the user, `PYTHONPATH`, editable
installs, packages that are links into a cache. Nothing else of the folders around it is shown.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from jacobi_forcing.errors import ConfigError

# Debian's numpy finds its linear algebra through /etc/alternatives, which holds only links.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_SYSTEM += ("/etc/ld.so.cache", "/etc/alternatives")
# Of a prefix; the rest of its folder may be a project, or a home.
_OF_PREFIX = ("bin", "lib", "lib32", "lib64", "share", "pyvenv.cfg")
_SUFFIXES = (".py", ".so")

# -P leaves out the folder of the script; what else is on the path is the environment's own.
# Editable installs of setuptools are no folders on the path but a module that maps names to files.
_PROBE = """
import json, sys
finders = [module for name, module in sys.modules.items() if name.startswith("__editable__")]
mapped = [path for finder in finders for path in getattr(finder, "MAPPING", {}).values()]
print(json.dumps([sys.path, mapped]))
"""


class Environment(NamedTuple):
    """What the running Python imports from.

    Fields:
        path: `sys.path`, without the folder of a script.
        shown: Folders and files that a program must see, none within another.
        modules: (index into path, file) of every module that is installed and can be read.
    """

    path: list[str]
    shown: list[str]
    modules: list[tuple[int, str]]

    @property
    def installed(self) -> set[str]:
        """Names of all modules that are not of the standard library."""
        names = {file.partition("/")[0].partition(".")[0] for _, file in self.modules}
        return names - sys.stdlib_module_names


@cache
def running_environment() -> Environment:
    """Find out what the running Python imports from.

    Raises:
        ConfigError: Python does not start.
    """
    command = [sys.executable, "-P", "-c", _PROBE]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise ConfigError(f"{sys.executable}, which runs this, does not start: {why}") from error
    path, mapped = json.loads(found.stdout.splitlines()[-1])  # what is imported at start may print
    path += sorted({os.path.dirname(file) for file in mapped} - set(path))
    modules = [(i, file) for i, folder in enumerate(path) for file in _modules(folder)]
    shown = [*_SYSTEM, *_of_python(), *_of_path(path)]
    shown += [file for one in mapped for file in (one, f"{one}.py") if os.path.exists(file)]
    return Environment(path, _outermost(shown), modules)


def _of_python() -> Iterator[str]:
    """Name what Python itself is made of."""
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        yield from (os.path.join(prefix, name) for name in _OF_PREFIX)
    link = sys.executable
    while os.path.islink(link):
        link = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
        yield link


def _of_path(path: Iterable[str]) -> Iterator[str]:
    """Name what is to be seen of the folders that modules are searched in."""
    for folder in path:
        is_library = os.path.exists(os.path.join(folder, "os.py"))
        if is_library or os.path.basename(folder) == "lib-dynload" or _holds_packages(folder):
            yield folder
            yield from _links(folder)
        elif os.path.isfile(folder):  # an archive
            yield folder
        else:  # such as the project's folder of an editable install: its packages only
            for file in _modules(folder):
                yield os.path.join(folder, file.removesuffix("/__init__.py"))


def _holds_packages(folder: str) -> bool:
    """Tell whether an installer fills a folder, `pip install --target` too."""
    named = os.path.basename(folder) in ("site-packages", "dist-packages")
    return named or any(entry.name.endswith(".dist-info") for entry in _entries(folder))


def _modules(folder: str) -> Iterator[str]:
    """Name the file of every module right within a folder that can be read."""
    for entry in _entries(folder):
        name = entry.name + "/__init__.py" if entry.is_dir() else entry.name
        is_module = entry.name.partition(".")[0].isidentifier() and name.endswith(_SUFFIXES)
        if is_module and os.access(os.path.join(folder, name), os.R_OK):
            yield name


def _links(folder: str) -> Iterator[str]:
    """Name what links in a folder lead to: installers link into their cache, Debian into /etc."""
    for entry in _entries(folder):
        if entry.is_symlink():
            yield os.path.realpath(entry.path)
        elif entry.is_dir():
            for file in filter(os.DirEntry.is_symlink, _entries(entry.path)):
                target = os.path.realpath(file.path)
                above = os.path.dirname(target)
                yield above if os.path.basename(above) == entry.name else target


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _outermost(paths: Iterable[str]) -> list[str]:
    """Leave out what does not exist or lies within another; what a link leads to is named too."""
    found = {os.path.normpath(path) for path in paths if os.path.exists(path)}
    found |= {os.path.realpath(path) for path in found}
    kept: list[str] = []
    for path in sorted(found, key=lambda path: (len(path), path)):
        if not any(path.startswith(f"{one}/") for one in kept):
            kept.append(path)
    return kept
