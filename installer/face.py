"""
What people and scripts see: the one module that prints.

On a terminal results are tables in colour; elsewhere, or with NO_COLOR, plain lines; with --json one JSON object. Rich
is imported only where it draws something.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from .errors import AetherInstallError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from .fuse import Fused
    from .inspection import Inspection
    from .install import Outcome
    from .locate import Spandrel
    from .plan import Plan

_STATES = {
    "absent": (
        "This spandrel does not load AetherNet models.",
        "Run `aether-install spandrel` to teach it.",
    ),
    "installed": ("This spandrel loads AetherNet models.", "Restart programs that were running."),
    "outdated": (
        "This spandrel loads AetherNet models with the payload of another aether-install.",
        "Run `aether-install spandrel` to bring it up to date.",
    ),
    "partial": (
        "AetherNet is here in part: an installation was interrupted, or spandrel was reinstalled over it.",
        "Run `aether-install spandrel` to complete it, or `aether-install uninstall` to clear it away.",
    ),
    "modified": (
        "Files of ours were edited since they were installed.",
        "Run `aether-install spandrel --force` or `aether-install uninstall --force`, which keep the edited ones.",
    ),
    "foreign": (
        "An AetherNet that is not ours is here, and aether-install leaves it alone.",
        "Use that one, or remove it, its registry entry included, the way it came.",
    ),
    "unsupported": (
        "This spandrel has no registry of the kind that 0.3.0 and later have.",
        "Upgrade spandrel to 0.3.0 or later.",
    ),
}

_MARKS = {"good": ("bold green", "✔"), "bad": ("bold yellow", "●"), "none": ("bold", "·")}


@dataclass
class View:
    """A result as people read it: a headline, facts, and what to do next."""

    headline: str
    mood: str = "good"
    facts: list[tuple[str, str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    table: list[tuple[str, ...]] = field(default_factory=list)
    diff: str = ""
    advice: list[str] = field(default_factory=list)


class Face:
    """
    Shows one command's progress, result or error.

    Args:
        as_json: print the result as one JSON object.
        about_spandrel: whether the command is about a spandrel, and not about a model file.
    """

    def __init__(self, as_json: bool, about_spandrel: bool = True) -> None:
        self._as_json = as_json
        self._about_spandrel = about_spandrel
        self._spandrel: Spandrel | None = None
        self._status: Status | None = None

    def subject(self, spandrel: Spandrel) -> Spandrel:
        """Notes which spandrel the command is about, for errors to come, and returns it."""
        self._spandrel = spandrel
        return spandrel

    def progress(self, message: str, *, urgent: bool = False) -> None:
        """Shows on a terminal that something is going on, and what; elsewhere only what is urgent, as a line."""
        if not _is_terminal(sys.stderr):
            if urgent:
                print(f"aether-install: {message}", file=sys.stderr, flush=True)
        elif self._status is None:
            self._status = _console(sys.stderr).status(message)
            self._status.start()
        else:
            self._status.update(message)

    def done(self) -> None:
        """Ends what ``progress`` shows."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def error(self, error: AetherInstallError) -> None:
        """Shows an error on stderr."""
        self.done()
        if _is_terminal(sys.stderr):
            console = _console(sys.stderr)
            console.print("[bold red]aether-install:[/] ", end="")
            console.print(error.message, markup=False, highlight=False, soft_wrap=True)
            if error.details:
                console.print(_indented(error.details), style="dim", markup=False, highlight=False, soft_wrap=True)
        else:
            print(f"aether-install: {error.message}", file=sys.stderr)
            if error.details:
                print(_indented(error.details), file=sys.stderr)
        if self._as_json:
            self._print_json({**self._spandrel_facts(error), "error": error.message})

    def status(self, outcome: Outcome) -> bool:
        """Shows the state of a spandrel; returns whether it is the one to be in."""
        state = outcome.before.value
        meaning, advice = _STATES[state]
        good = state == "installed"
        view = View(f"{state}: {meaning}", "good" if good else "bad", [*self._about(outcome)], advice=[advice])
        self._show(view, self._outcome_json(outcome))
        return good

    def installed(self, outcome: Outcome) -> None:
        """Shows what installing did or would do."""
        version = outcome.facts.shipped.version
        where = f"spandrel {outcome.facts.spandrel.version or ''}".rstrip()
        if not outcome.plan.steps:
            view = View(f"AetherNet {version} is installed in {where} already; nothing was changed", "none")
        elif outcome.dry_run:
            view = View(f"AetherNet {version} would be installed in {where}; nothing was changed", "none")
        else:
            verb = "installed" if outcome.before.value == "absent" else f"{outcome.before.value} before, installed now"
            view = View(f"AetherNet {version} {verb}: {where} loads AetherNet models")
            view.advice.append("Restart programs that use this spandrel.")
            if not outcome.verified:
                view.advice.append("Not verified: no interpreter was asked to load a model.")
        self._show_change(view, outcome)

    def uninstalled(self, outcome: Outcome) -> None:
        """Shows what uninstalling did or would do."""
        where = f"spandrel {outcome.facts.spandrel.version or ''}".rstrip()
        if not outcome.plan.steps:
            view = View(f"nothing of ours is in {where}; nothing was changed", "none")
        elif outcome.dry_run:
            view = View(f"AetherNet would be removed from {where}; nothing was changed", "none")
        else:
            view = View(f"AetherNet removed: {where} is as it was before")
        self._show_change(view, outcome)

    def fused(self, result: Fused) -> None:
        """Shows what fusing did."""
        source, comparison = result.source, result.comparison
        view = View(f"{source.description}: {result.fused_layers} blocks fused into {result.output}")
        if result.img_range != 1:
            view.facts.append(("img_range", f"{result.img_range:g}, folded into the first and last convolution"))
        view.columns = ["", "before", "after"]
        view.table = [
            ("weights", f"{result.counts[0]:,}", f"{result.counts[1]:,}"),
            ("file", _bytes(result.sizes[0]), _bytes(result.sizes[1])),
        ]
        if comparison:
            view.table.append(("one run", f"{comparison.seconds_unfused:.3f} s", f"{comparison.seconds_fused:.3f} s"))
            view.facts.append(
                (
                    "largest difference",
                    f"{comparison.max_abs_diff:.2g}, where outputs span {comparison.output_range:.2g}",
                )
            )
        else:
            view.advice.append("Not verified: the fused model was not compared with the unfused one.")
        self._show(
            view,
            {
                "parameters": _parameters(source.parameters, result.img_range),
                "fused_layers": result.fused_layers,
                "max_abs_diff": comparison.max_abs_diff if comparison else None,
                "output_path": str(result.output),
                "variant": source.variant,
                "dtype": source.dtype,
                "weights": {"before": result.counts[0], "after": result.counts[1]},
                "bytes": {"before": result.sizes[0], "after": result.sizes[1]},
            },
        )

    def inspected(self, result: Inspection) -> None:
        """Shows what a model file is."""
        identity = result.identity
        checkpoint = result.checkpoint
        described: dict[str, Any] = {
            "generation": result.generation,
            "variant": identity.variant if identity else None,
            "fused": identity.fused if identity else None,
            "parameters": _parameters(identity.parameters, identity.noted_img_range or 1.0) if identity else None,
            "dtype": identity.dtype if identity else None,
            "container": identity.container if identity else None,
            "format": checkpoint.format,
            "bytes": result.size,
            "looks_like": result.looks_like,
            "warnings": result.warnings,
        }
        if identity:
            view = View(f"{checkpoint.path}: {identity.description}")
            view.facts = [
                ("generation", result.generation or ""),
                ("variant", identity.variant or "a size of its own"),
                ("form", "fused" if identity.fused else "unfused"),
                *((name, str(value)) for name, value in described["parameters"].items()),
                ("dtype", identity.dtype),
                ("weights", identity.container + (f", keys prefixed {identity.prefix}" if identity.prefix else "")),
            ]
        else:
            view = View(f"{checkpoint.path}: {result.looks_like}", "bad")
        view.facts.append(("file", f"{checkpoint.format}, {_bytes(result.size)}"))
        view.advice = [f"Warning: {warning}." for warning in result.warnings]
        self._show(view, described)

    def _show_change(self, view: View, outcome: Outcome) -> None:
        view.facts += self._about(outcome)
        view.facts += [("edited version kept as", str(path)) for path in outcome.plan.set_aside]
        if outcome.plan.steps:
            verb = "would change" if outcome.dry_run else "changed"
            view.facts += [(verb, str(path)) for path in outcome.plan.changed]
        described = self._outcome_json(outcome)
        if outcome.dry_run:
            view.diff = "".join(_diff(outcome.plan))
            described["would_change"] = [str(path) for path in outcome.plan.changed]
            described["diff"] = view.diff
        self._show(view, described)

    def _about(self, outcome: Outcome) -> Iterator[tuple[str, str]]:
        found = outcome.facts.spandrel
        yield "spandrel", f"{found.version or 'unknown version'} in {found.package}"
        if found.interpreter:
            yield "python", f"{found.interpreter.version}, {found.interpreter.executable}"
            yield "prefix", found.interpreter.prefix
            for other in found.interpreter.also:
                yield "not used", f"{other}, which the one above hides"
        shipped, there = outcome.facts.shipped.version, outcome.facts.installed_version
        yield "payload", f"{there or 'none'} installed, {shipped} available"

    def _outcome_json(self, outcome: Outcome) -> dict[str, Any]:
        found = outcome.facts.spandrel
        return {
            "state": outcome.facts.state.value,
            "spandrel": {"version": found.version, "path": str(found.package)},
            "payload": {"version": outcome.facts.shipped.version, "installed": outcome.facts.installed_version},
            "changed": [str(path) for path in outcome.changed],
        }

    def _spandrel_facts(self, error: AetherInstallError) -> dict[str, Any]:
        if not self._about_spandrel:
            return {}
        from .manifest import shipped_payload

        found = self._spandrel
        return {
            "state": error.state,
            "spandrel": {
                "version": found.version if found else None,
                "path": str(found.package) if found else None,
            },
            "payload": {"version": shipped_payload().version},
            "changed": [],
        }

    def _show(self, view: View, described: dict[str, Any]) -> None:
        self.done()
        if self._as_json:
            self._print_json(described)
        elif _is_terminal(sys.stdout):
            _draw(view)
        else:
            print("\n".join(_plain_lines(view)))

    def _print_json(self, described: dict[str, Any]) -> None:
        print(json.dumps(described, indent=2))


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False)


def _draw(view: View) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console(sys.stdout)
    style, mark = _MARKS[view.mood]
    console.print(Text(f"{mark} ", style).append(view.headline))
    if view.facts:
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="cyan", justify="right", no_wrap=True)
        facts.add_column(overflow="fold")
        previous = ""
        for name, value in view.facts:
            facts.add_row("" if name == previous else name, Text(value))
            previous = name
        console.print(facts)
    if view.table:
        table = Table(box=box.ROUNDED, border_style="dim")
        for column in view.columns:
            table.add_column(column, justify="right" if column else "left")
        for row in view.table:
            table.add_row(*row)
        console.print(table)
    for line in view.diff.split("\n")[:-1]:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        console.print(Text(line.rstrip("\r"), colour), soft_wrap=True)
    for advice in view.advice:
        console.print(Text(advice, "bold"))


def _plain_lines(view: View) -> Iterator[str]:
    yield view.headline
    for name, value in view.facts:
        yield f"{name}: {value}"
    for row in view.table:
        yield f"{row[0]}: " + ", ".join(
            f"{value} {column}" for value, column in zip(row[1:], view.columns[1:], strict=True)
        )
    yield from view.diff.split("\n")[:-1]
    yield from view.advice


def _diff(plan: Plan) -> Iterator[str]:
    import difflib

    from .writer import Put, PutBack, Remove

    for step in plan.steps:
        match step:
            case Put(path, data):
                after: bytes | None = data
            case PutBack(name, path):
                after = name.read_bytes()
            case Remove(path):
                after = None
            case _:
                continue
        before = b""
        with suppress(FileNotFoundError):
            before = path.read_bytes()
        if path.suffix == ".pyc":
            continue
        yield from difflib.unified_diff(
            _lines(before),
            _lines(after or b""),
            str(path) if before else "/dev/null",
            str(path) if after else "/dev/null",
        )


def _lines(data: bytes) -> list[str]:
    lines = [line + "\n" for line in data.decode("utf-8", "replace").split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, f"{last}\n\\ No newline at end of file\n"] if last else lines


def _parameters(parameters: dict[str, Any], img_range: float) -> dict[str, Any]:
    names = ("embed_dim", "depths", "upscale", "in_chans", "out_chans", "mlp_ratio", "lk_kernel", "sk_kernel")
    return {**{name: parameters[name] for name in names}, "img_range": img_range}


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
