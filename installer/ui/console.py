"""
The one module that prints.

On a terminal results are tables in colour and progress is a spinner or a bar; with NO_COLOR both are plain lines.
Elsewhere results are plain lines, and progress is silent but for what may take forever. With --json the result is one
JSON object. Rich is imported only where it draws something.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import AetherInstallError
from ..prompt import for_powershell, typed

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID

    from ..tree.layout import Spandrel
    from .view import View

_CONTROLS = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f]")

_OF_NUMBERS = ("unfused", "fused", "largest difference", "speed-up")
"""Columns whose cells are aligned by their ends."""

_MARKS = {"good": ("bold green", "✔"), "bad": ("bold yellow", "●"), "none": ("bold", "·")}
_CELLS = {"ok": ("✔", "bold green"), "failed": ("✘", "bold red"), "not reached": ("·", "dim")}


class Console:
    """
    Shows one command's progress, result or error.

    Args:
        as_json: print the result as one JSON object.
        about_spandrel: whether the command is about a spandrel, and not about a model file.
        verbose: show the details of results too.
    """

    def __init__(self, as_json: bool, about_spandrel: bool = True, verbose: bool = False) -> None:
        _make_forgiving()
        self._as_json = as_json
        self._verbose = verbose
        self._about_spandrel = about_spandrel
        self._spandrel: Spandrel | None = None
        self._host: str | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._told = ""

    def subject(self, spandrel: Spandrel | None, host: str | None = None) -> None:
        """Notes which spandrel the command is about and, once, whose it is by the host's id, for errors to come."""
        self._spandrel = spandrel
        self._host = host or self._host

    def progress(self, message: str, *, urgent: bool = False, part: tuple[int, int] | None = None) -> None:
        """
        Shows on a terminal that something is going on, and elsewhere what is urgent.

        Args:
            message: what is going on.
            urgent: whether it may take forever.
            part: how many things are done, of how many; draws a bar.
        """
        if not _draws_on(sys.stderr):
            if message != self._told and (urgent or sys.stderr.isatty()):
                print(f"aether-install: {message}", file=sys.stderr, flush=True)
                self._told = message
            return
        if self._progress is None:
            self._progress, self._task = _start_progress(part is not None)
        assert self._task is not None
        if part is not None:
            self._progress.update(self._task, completed=part[0], total=part[1])
        self._progress.update(self._task, description=message)

    def done(self) -> None:
        """Ends what ``progress`` shows."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def show(self, view: View) -> None:
        """Shows a result on stdout."""
        self.done()
        view.facts += view.details if self._verbose else view.summary
        with _perhaps_unheard():
            if self._as_json:
                _print_json(view.described)
            elif _draws_on(sys.stdout):
                _draw(view)
            else:
                print("\n".join(map(_as_called, _plain_lines(view))))

    def error(self, error: AetherInstallError, *, final: bool = True) -> None:
        """
        Shows an error on stderr.

        Args:
            error: what went wrong.
            final: whether it is the command's result, and not one of several.
        """
        self.done()
        message = _printable(_as_called(error.message))
        if _draws_on(sys.stderr):
            console = _console(sys.stderr)
            console.print("[bold red]aether-install:[/] ", end="")
            console.print(message, markup=False, soft_wrap=True)
            if error.details:
                console.print(_indented(error.details), style="dim", markup=False, soft_wrap=True)
        else:
            print(f"aether-install: {message}", file=sys.stderr)
            if error.details:
                print(_indented(error.details), file=sys.stderr)
        if self._as_json and final:
            with _perhaps_unheard(anyway=True):
                _print_json(self._described(error))

    def _described(self, error: AetherInstallError) -> dict[str, Any]:
        if not self._about_spandrel:
            return {"error": error.message}
        from .tree import described_failure

        whose = {"host": self._host} if self._host else {}
        return {**whose, **described_failure(error, self._spandrel)}


def _make_forgiving() -> None:
    """Work that is done is not to fail because a stream is closed, or cannot say a file's name in its encoding."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _speaks_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().startswith("utf")


def _print_json(described: dict[str, Any]) -> None:
    print(json.dumps(described, indent=2))


@contextmanager
def _perhaps_unheard(anyway: bool = False) -> Iterator[None]:
    """
    Whoever reads stdout may have gone; what the command did is done all the same, and its exit status tells it.

    Args:
        anyway: let any other trouble pass as well, where stderr has told of it.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if not anyway and not is_unheard(error):
            raise
        # Python flushes it once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_unheard(error: BaseException | None) -> bool:
    """Whether writing failed since the reader has gone, which C's library on Windows has no error of its own for."""
    is_invalid = isinstance(error, OSError) and (error.errno, error.filename) == (errno.EINVAL, None)
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and is_invalid)


def _printable(text: str) -> str:
    """A text without what moves a terminal's cursor or changes its colours, which a file's name or content may hold."""
    return _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)


def _as_called(text: str) -> str:
    """A sentence whose commands begin as this one did: the one file is run by a Python, and has no command."""
    archive = getattr(__spec__.loader, "archive", "") if __spec__ else ""
    if os.path.abspath(archive) == os.path.abspath(sys.argv[0]):
        text = text.replace("`aether-install ", f"`{typed([sys.orig_argv[0], sys.argv[0]])} ")
    return for_powershell(text)


def _draws_on(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")


def _console(stream: TextIO) -> RichConsole:
    from rich.console import Console as RichConsole

    return RichConsole(file=stream, highlight=False)


def _start_progress(with_bar: bool) -> tuple[Progress, TaskID]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    bar = (BarColumn(bar_width=24), MofNCompleteColumn()) if with_bar else ()
    spinner = SpinnerColumn("dots" if _speaks_unicode(sys.stderr) else "line")
    columns = (spinner, *bar, TextColumn("{task.description}", markup=False))
    progress = Progress(*columns, console=_console(sys.stderr), transient=True)
    progress.start()
    return progress, progress.add_task("", total=None)


def _draw(view: View) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console(sys.stdout)
    style, mark = _MARKS[view.mood]
    if not _speaks_unicode(sys.stdout):
        mark = "*"
    console.print(Text(f"{mark} ", style).append(_printable(_as_called(view.headline)), "bold"))
    if view.facts:
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="cyan", justify="right", no_wrap=True)
        facts.add_column(overflow="fold")
        previous = ""
        for name, value in view.facts:
            facts.add_row("" if name == previous else name, Text(_printable(value)))
            previous = name
        console.print(facts)
    if view.rows:
        table = Table(box=box.ROUNDED, border_style="dim", show_header=any(view.columns))
        for column in view.columns:
            table.add_column(column, justify="right" if column in _OF_NUMBERS else "left", overflow="fold")
        for row in view.rows:
            table.add_row(*(Text(*_cell(text)) for text in row))
        console.print(table)
    for line in view.diff.split("\n")[:-1]:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        console.print(Text(line.rstrip("\r"), colour), soft_wrap=True)
    for advice in view.advice:
        console.print(Text(_printable(_as_called(advice)), "italic"))


def _cell(text: str) -> tuple[str, str]:
    """A cell and its style: what became of something is a mark, where marks can be shown."""
    mark, style = _CELLS.get(text, (text, ""))
    return (mark if _speaks_unicode(sys.stdout) else text) if style else _printable(text), style


def _plain_lines(view: View) -> Iterator[str]:
    yield _printable(view.headline)
    for name, value in view.facts:
        yield _printable(f"{name}: {value}")
    for row in view.rows:
        cells = zip(view.columns[1:], row[1:], strict=True)
        told = ", ".join(f"{column} {cell}".lstrip() for column, cell in cells if cell)
        yield _printable(f"{row[0]}: {told}".replace("\n", " in "))
    yield from view.diff.split("\n")[:-1]
    yield from map(_printable, view.advice)


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
