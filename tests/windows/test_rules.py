"""The rules hold: what Windows refuses is refused, and what it allows is done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from environments import run

from windows import windows_rules

REFUSED = {
    "renaming an open file": "file = open('a'); os.rename('a', 'new')",
    "replacing an open file": "file = open('a'); os.replace('b', 'a')",
    "replacing a file by an open one": "file = open('a'); os.replace('a', 'b')",
    "removing an open file": "file = open('a'); pathlib.Path('a').unlink()",
    "removing another name of an open file": "os.link('a', 'c'); file = open('a'); os.remove('c')",
    "renaming a mapped file": "held = mapped('a'); shutil.move('a', 'new')",
    "replacing a mapped file": "held = mapped('a'); os.replace('b', 'a')",
    "removing a mapped file": "held = mapped('a'); os.unlink('a')",
    "cutting a mapped file short": "held = mapped('a'); open('a', 'wb')",
    "removing a file that a child has open": "child = holder('a'); os.unlink('a')",
    "renaming a folder with an open file": "file = open('folder/c'); os.rename('folder', 'new')",
    "renaming onto a file": "os.rename('a', 'b')",
    "removing a read-only file": "os.chmod('a', 0o444); os.unlink('a')",
    "replacing a read-only file": "os.chmod('a', 0o444); os.replace('b', 'a')",
    "opening a folder": "os.open('folder', os.O_RDONLY)",
    "flushing what is only read": "file = open('a'); os.fsync(file.fileno())",
    "a name that differs in case alone": "open('A', 'w')",
    "a folder that differs in case alone": "os.mkdir('FOLDER')",
    "a name with a colon": "open('a:b', 'w')",
    "links that are not followed": "os.link('a', 'c', follow_symlinks=False)",
    "a descriptor for a folder": "os.unlink('a', dir_fd=3)",
    "files without a name": "os.O_TMPFILE",
    "owners": "os.chown('a', 0, 0)",
    "user ids": "os.geteuid()",
}

ALLOWED = {
    "replacing a closed file": "open('a').close(); os.replace('b', 'a')",
    "removing what was mapped": "held = mapped('a'); held.close(); os.unlink('a')",
    "changing case": "os.rename('a', 'A')",
    "temporary files": "tempfile.NamedTemporaryFile().close(); shutil.rmtree(tempfile.mkdtemp())",
    "removing trees": "shutil.rmtree('folder')",
    "writing": "file = open('new', 'w'); file.write('x'); file.flush(); os.fsync(file.fileno())",
    "links": "os.link('a', 'c'); os.unlink('a')",
}

PROGRAM = """
import json, mmap, os, pathlib, shutil, subprocess, sys, tempfile

def mapped(name):
    with open(name, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

def holder(name):
    program = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", program, name], stdin=-1, stdout=-1)
    child.stdout.readline()
    return child

outcomes = {}
for number, (what, code) in enumerate(json.load(sys.stdin).items()):
    os.makedirs(f"{number}/folder")
    os.chdir(str(number))
    for name in ("a", "b", "folder/c"):
        pathlib.Path(name).write_text("content")
    try:
        exec(code, dict(globals()))
        outcomes[what] = "done"
    except Exception as error:
        outcomes[what] = type(error).__name__
    os.chdir("..")
print(json.dumps(outcomes))
"""


def under_the_rules(folder: Path, attempts: dict[str, str]) -> dict[str, str]:
    """What each attempt ends with."""
    told = run(sys.executable, "-c", PROGRAM, cwd=folder, env=windows_rules(), input=json.dumps(attempts)).stdout
    outcomes: dict[str, str] = json.loads(told)
    assert list(outcomes) == list(attempts)
    return outcomes


def test_windows_refuses(tmp_path: Path) -> None:
    refusals = {"PermissionError", "FileExistsError", "OSError", "NotImplementedError", "AttributeError"}
    outcomes = under_the_rules(tmp_path, REFUSED)
    assert not {what: outcome for what, outcome in outcomes.items() if outcome not in refusals}


def test_windows_allows(tmp_path: Path) -> None:
    assert under_the_rules(tmp_path, ALLOWED) == dict.fromkeys(ALLOWED, "done")


def test_without_the_rules_only_what_no_system_allows_is_refused(tmp_path: Path) -> None:
    """So the refusals come from the rules."""
    told = run(sys.executable, "-c", PROGRAM, cwd=tmp_path, input=json.dumps(REFUSED)).stdout
    refused = {what for what, outcome in json.loads(told).items() if outcome != "done"}
    assert refused == {"a descriptor for a folder"}


def test_the_rules_reach_child_processes() -> None:
    program = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {ASK!r}]).decode())"
    assert run(sys.executable, "-c", program, env=windows_rules()).stdout.strip() == "False False"


ASK = "import os; print(hasattr(os, 'O_TMPFILE'), hasattr(os, 'chown'))"
