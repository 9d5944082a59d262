"""RECORD is edited row by row, and every other row keeps its bytes."""

from __future__ import annotations

import csv
import hashlib
import io
from base64 import urlsafe_b64decode

import pytest

from aether_install.tree import record

RECORD = (
    b"a/__init__.py,sha256=abc,12\n"
    b'"a/with, comma.py",sha256=def,3\n'
    b"a/main_registry.py,sha256=ghi,45\n"
    b"a/__pycache__/main_registry.cpython-311.pyc,,\n"
    b"a-1.dist-info/RECORD,,\n"
)


def test_a_row_states_digest_and_size() -> None:
    path, digest, size = next(csv.reader([record.row("a/b.py", b"hello").decode()]))
    assert (path, size) == ("a/b.py", "5")
    kind, _, encoded = digest.partition("=")
    assert kind == "sha256"
    assert urlsafe_b64decode(encoded + "==") == hashlib.sha256(b"hello").digest()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("final", [True, False])
def test_rows_are_replaced_in_place_or_appended(newline: bytes, final: bool) -> None:
    before = RECORD.replace(b"\n", newline)
    before = before if final else before.removesuffix(newline)
    after = record.edited(before, files={"a/main_registry.py": b"new", "a/added.py": b"added"})
    rows = list(record.rows(after).items())
    assert rows[2] == ("a/main_registry.py", record.row("a/main_registry.py", b"new"))
    assert rows[-1] == ("a/added.py", record.row("a/added.py", b"added"))
    assert after.count(newline) == 6
    assert after.replace(rows[2][1], b"a/main_registry.py,sha256=ghi,45").startswith(before)


@pytest.mark.parametrize("prefix", ["/opt/site-packages/", "/opt/a, b/", 'C:\\some "place"\\', "/opt/ü/"])
def test_rows_with_absolute_paths_are_the_same_rows(prefix: str) -> None:
    relative = ["a/__init__.py", "a/__helpers/main_registry.py", "a-1.dist-info/RECORD"]
    separator = "\\" if "\\" in prefix else "/"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [prefix + path.replace("/", separator), "", ""] for path in relative
    )
    content = text.getvalue().encode()
    assert list(record.rows(content)) == relative
    extended = record.edited(content, files={relative[1]: b"new", "a/added.py": b"added"})
    assert list(record.rows(extended)) == [*relative, "a/added.py"]
    assert record.lists(extended, {"a/added.py": b"added"})
    assert not record.lists(extended, {"a/added.py": b"other"})
    paths = [row[0].replace("\\", "/") for row in csv.reader(extended.decode().splitlines())]
    assert paths[-1] == prefix.replace("\\", "/") + "a/added.py"
    assert record.edited(extended, without={"a/added.py"}, files={relative[1]: b""}).count(b"\n") == 3


def test_rows_are_removed_by_path() -> None:
    assert record.edited(RECORD, without={"a/with, comma.py", "missing"}) == RECORD.replace(
        b'"a/with, comma.py",sha256=def,3\n', b""
    )


def test_rows_that_nobody_can_read_keep_their_bytes() -> None:
    damaged = RECORD + b'"never closed,\n\0,\n' + b"x" * 200_000 + b",,\n\n,,\n\xff,,\n"
    after = record.edited(damaged, without={"a/__init__.py"}, files={"a/added.py": b"added"})
    assert after == damaged.replace(b"a/__init__.py,sha256=abc,12\n", b"") + record.row("a/added.py", b"added") + b"\n"
