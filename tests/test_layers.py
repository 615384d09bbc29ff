import ast
from pathlib import Path

import jacobi_forcing
from jacobi_forcing import cli

ROOT = Path(jacobi_forcing.__file__).parent
LAYERS = [
    {"errors"},
    {"config", "host", "logs", "sandbox", "stop"},
    {"models", "problems", "progress"},
    {"decoding", "data"},
    {"training", "evaluation", "drawing", "integrations"},
    {"serving"},
    {"stages"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
# They run other stages, as someone at the command line would.
CONDUCTORS = {"force", "demo", "dry_run"}


def modules():
    """Every module as (its file's path below the package, without suffix; its source)."""
    for path in sorted(ROOT.rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        if names != ("__init__",):
            yield names, path.read_text()


def imports(names, source):
    """What a module imports from this package, as paths of names; in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            parts = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                parts = names[: -node.level] + parts
            elif parts[0] == "jacobi_forcing":
                parts = parts[1:]
            else:
                continue
            for alias in node.names:
                yield (*parts, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first, *parts = alias.name.split(".")
                if first == "jacobi_forcing":
                    yield tuple(parts)


def edges():
    """Every import between rooms, as (module, its room, imported room)."""
    for names, source in modules():
        for imported in imports(names, source):
            if imported and imported[0] != "__version__":
                yield ".".join(names), names[0], imported[0]


def test_every_room_has_its_layer():
    rooms = {names[0] for names, _ in modules()} - {"bundled"}
    assert rooms <= LEVEL.keys(), "give a new room its place in LAYERS"
    assert {"errors", "config", "models", "data", "decoding", "training", "stages", "cli"} <= rooms


def test_imports_point_down():
    found = list(edges())
    assert len(found) > 50
    wrong = [
        f"{module} imports {target}"
        for module, room, target in found
        if room != target and LEVEL[target] >= LEVEL[room]
    ]
    assert not wrong


def test_stages_meet_only_in_files():
    verbs = set(cli.STAGES)
    wrong = []
    for names, source in modules():
        if names[0] != "stages" or names[1] in CONDUCTORS:
            continue
        for imported in imports(names, source):
            others = verbs.intersection(imported[1:2]) if imported[:1] == ("stages",) else set()
            wrong += [f"{names[1]} imports {other}" for other in others - {names[1]}]
    assert not wrong


def test_every_stage_of_the_command_line_has_its_file():
    assert {f"{stage}.py" for stage in cli.STAGES} <= {p.name for p in ROOT.glob("stages/*.py")}
