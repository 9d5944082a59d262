"""
As virus scanners, indexers and synchronising programs do: opens whatever is new in some folders, for a moment each.

``python scanner.py SECONDS FOLDER...`` holds each new file for so long, once, without sharing its deletion, until its
stdin is closed. It says ``ready`` when it has seen what was there before, and in the end how many files it held.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread

Version = tuple[str, int]


def files_in(folders: list[str]) -> Iterator[Version]:
    """The files in some folders, told apart also by when they were written."""
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            yield from [(entry.path, entry.stat().st_mtime_ns) for entry in entries if entry.is_file()]


def main(seconds: float, folders: list[str]) -> None:
    end = Thread(target=sys.stdin.read, daemon=True)
    end.start()
    known = set(files_in(folders))
    held = 0
    print("ready", flush=True)
    while end.is_alive():
        for version in list(files_in(folders)):
            if version not in known:
                known.add(version)
                with suppress(OSError), open(version[0], "rb"):
                    time.sleep(seconds)
                    held += 1
    print(held, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
