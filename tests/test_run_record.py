"""What a run records of the code that made it."""

import subprocess

from jacobi_forcing.data import record


def test_the_commit_is_named_and_whether_the_code_was_changed(tmp_path, monkeypatch):
    """New figures are no change: a benchmark must not soil the next one's record."""

    def git(*arguments):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    package, results = tmp_path / "package", tmp_path / "benchmarks" / "results"
    package.mkdir()
    results.mkdir(parents=True)
    monkeypatch.setattr(record, "__file__", str(package / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.commit() is None
    for path in (package / "record.py", results / "speed.json"):
        path.write_text("1")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    name = git("rev-parse", "HEAD").stdout[:12]
    assert record.commit() == name
    (results / "speed.json").write_text("2")
    (results / "new.json").write_text("2")
    assert record.commit() == name
    (package / "record.py").write_text("2")
    assert record.commit() == f"{name}-dirty"
