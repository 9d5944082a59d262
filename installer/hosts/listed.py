"""The folders in which a host lists upscale models, told from its files and from what its process was started with."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .host import Host
from .system import System, is_inside

_SUBFOLDER = "upscale_models"
"""What ComfyUI calls the kind of model, in its configuration and in folders of its own."""

_FLOW = re.compile(r"^[^#\n]*(?<!\$)\{", re.MULTILINE)
"""A mapping on one line, as in JSON, which is YAML too and is not read here."""

_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}|%(\w+)%")


def model_folders(system: System, host: Host) -> tuple[Path, ...]:
    """
    The folders in which a host lists upscale models, whether or not they are there.

    Empty if it takes them from anywhere, or if a file that may name more of them cannot be read or understood.
    """
    if host.models is None:
        return ()
    own = (Path(os.path.normpath(host.folder / path)) for path in host.kind.models)
    files = [path for pattern in host.kind.more_models for path in system.places(pattern, host.folder)]
    told = list(_told_to_processes(system, host))
    texts = {path: system.read(path, "replace") for path in (*files, *(path for path, is_file in told if is_file))}
    if any(text is None or _FLOW.search(text) for text in texts.values()):
        return ()
    noted = (folder for path, text in texts.items() for folder in noted_folders(system, text or "", path))
    return tuple(dict.fromkeys((host.models, *own, *noted, *(path for path, is_file in told if not is_file))))


def lists(folders: tuple[Path, ...], file: Path) -> bool:
    """Whether a file is in one of some folders, or in a folder inside it."""
    return any(is_inside(file, folder) for folder in folders)


def namesake_of(system: System, host: Host, name: str) -> Path | None:
    """A file of some name where a host lists models, or in a folder beside those, for other kinds of models."""
    folders = model_folders(system, host)
    listed = (Path(place, name) for folder in folders for place, _, names in os.walk(folder) if name in names)
    beside = (place / name for folder in folders for place in sorted(folder.parent.glob("*")))
    return next((path for path in (*listed, *beside) if os.path.isfile(path)), None)


def noted_folders(system: System, text: str, path: Path) -> Iterator[Path]:
    """
    The folders for upscale models that an ``extra_model_paths.yaml`` in some place names.

    Of YAML it reads what such files consist of: sections, and indented below them names with a value on the same line,
    or with several on deeper lines after ``|``. What is none of that is passed over.
    """
    base, folders = "", list[str]()
    depth, opened = 0, ""
    for line in (*text.splitlines(), "end:"):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        indented = len(line) - len(line.lstrip())
        if opened and indented > depth:
            folders += [_scalar(words.removeprefix("- "))] if opened == _SUBFOLDER else []
            continue
        name, _, value = words.partition(":")
        depth, opened = indented, ""
        if indented == 0:
            yield from (_place(system, folder, _place(system, base, path.parent)) for folder in folders if folder)
            base, folders = "", []
            continue
        name, value = _scalar(name), _scalar(value)
        if not value or value[0] in "|>":
            opened = name
        elif name == "base_path":
            base = value
        elif name == _SUBFOLDER:
            folders.append(value)


def _scalar(text: str) -> str:
    """A value as it is meant, without quotes or a comment."""
    text = text.strip()
    if text[:1] == '"':
        return text[1:].partition('"')[0].replace("\\\\", "\\")
    if text[:1] == "'":
        return text[1:].partition("'")[0]
    return text.partition(" #")[0].rstrip()


def _place(system: System, text: str, folder: Path) -> Path:
    """The folder that a value means, which may be relative to another."""

    def value(match: re.Match[str]) -> str:
        return system.environment.get(next(filter(None, match.groups())), match.group())

    text = _VARIABLE.sub(value, text).replace("\0", "")
    if system.platform == "windows":
        return system.path(text) or Path(os.path.normpath(folder / text.replace("\\", "/")))
    return system.path(text) or Path(os.path.normpath(folder / text))


def _told_to_processes(system: System, host: Host) -> Iterator[tuple[Path, bool]]:
    """Folders, and files that name more of them, that a host which runs was told on its command line."""
    for process in host.running:
        words = iter(process.arguments)
        option = ""
        for word in words:
            if word.startswith("--"):
                option, has_value, word = word.partition("=")
                if not has_value:
                    continue
            for name, subfolder in host.kind.model_options:
                if name == option:
                    place, is_file = _place(system, word, process.folder or host.folder), subfolder == "*.yaml"
                    yield place if is_file else Path(os.path.normpath(place / subfolder)), is_file
