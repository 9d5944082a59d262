"""What each command's result looks like: for people as a headline, facts, tables and advice, for scripts as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .plan import Change, Plan
from .writer import Put, PutBack

if TYPE_CHECKING:
    from .fuse import Batch, Comparison, Fused
    from .inspection import Inspection
    from .install import Outcome

_STATES = {
    "absent": (
        "this spandrel does not load AetherNet models",
        "Run `aether-install spandrel{options}` to teach it.",
    ),
    "installed": (
        "this spandrel loads AetherNet models",
        "Nothing is left to do, but to restart programs that were running when it was installed.",
    ),
    "outdated": (
        "this spandrel loads AetherNet models with the payload of another aether-install",
        "Run `aether-install spandrel{options}` to bring it up to date.",
    ),
    "partial": (
        "AetherNet is here in part: an installation was interrupted, or spandrel was reinstalled over it",
        "Run `aether-install spandrel{options}` to complete it, `aether-install uninstall{options}` to clear it away.",
    ),
    "modified": (
        "files of ours were edited since they were installed",
        "Run `aether-install spandrel --force{options}`, or the same with uninstall; both keep the edited files.",
    ),
    "foreign": (
        "an AetherNet that is not ours is here, and aether-install leaves it alone",
        "Use that one, or remove it, its registry entry included, the way it came.",
    ),
    "unsupported": (
        "this spandrel has no registry of the kind that 0.3.0 and later have",
        "Upgrade spandrel to 0.3.0 or later.",
    ),
}


@dataclass
class View:
    """
    A result, ready to be shown.

    Attributes:
        headline: one line that says it all.
        mood: ``good``, ``bad`` or ``none`` where nothing happened.
        facts: names and values.
        columns, rows: a table.
        diff: a unified diff.
        advice: what to know or do next.
        described: the same for scripts.
    """

    headline: str
    mood: str = "good"
    facts: list[tuple[str, str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    diff: str = ""
    advice: list[str] = field(default_factory=list)
    described: dict[str, Any] = field(default_factory=dict)


def status_view(outcome: Outcome) -> View:
    """The state of a spandrel."""
    state = outcome.before.value
    meaning, advice = _STATES[state]
    options = "".join(f" {shlex.quote(word)}" for word in outcome.facts.spandrel.named_by)
    view = View(f"{state}: {meaning}", "good" if state == "installed" else "bad")
    view.advice.append(advice.format(options=options))
    view.facts += _whereabouts(outcome)
    view.facts += [("edited", str(path)) for path in outcome.facts.edited if state == "modified"]
    view.described = _described(outcome)
    return view


def install_view(outcome: Outcome) -> View:
    """What installing did or would do."""
    version, where = outcome.facts.shipped.version, _name(outcome)
    if not outcome.plan.steps:
        return _change_view(View(f"AetherNet {version} is in {where} already; nothing was changed", "none"), outcome)
    if outcome.dry_run:
        return _change_view(View(f"AetherNet {version} would be installed in {where}", "none"), outcome)
    view = View(f"AetherNet {version} installed: {where} loads AetherNet models")
    _change_view(view, outcome)
    if outcome.verified:
        view.facts.append(("verified", "this Python loads an AetherNet with it"))
    else:
        view.advice.append("Not verified: no interpreter was asked to load a model.")
    view.advice.append("Restart programs that use this spandrel.")
    return view


def uninstall_view(outcome: Outcome) -> View:
    """What uninstalling did or would do."""
    where = _name(outcome)
    if not outcome.plan.steps:
        return _change_view(View(f"nothing of ours is in {where}; nothing was changed", "none"), outcome)
    if outcome.dry_run:
        return _change_view(View(f"AetherNet would be removed from {where}", "none"), outcome)
    return _change_view(View(f"AetherNet removed: {where} is as it was before"), outcome)


def fuse_view(result: Fused) -> View:
    """What fusing one model did."""
    source = result.source
    view = View(f"{source.description}: {result.fused_layers} blocks fused")
    view.facts.append(("written", str(result.output)))
    view.facts.append(("weights from", source.whereabouts))
    if result.img_range != 1:
        view.facts.append(("img_range", f"{result.img_range:g}, folded into the first and the last convolution"))
    view.columns = ["", "unfused", "fused"]
    view.rows = [
        ("weights", f"{result.counts[0]:,}", f"{result.counts[1]:,}"),
        ("file", _bytes(result.sizes[0]), _bytes(result.sizes[1])),
    ]
    if result.comparison:
        view.rows += _comparison_rows(result.comparison)
    else:
        view.advice.append("Not verified: the fused model was not compared with the unfused one.")
    view.described = _fused_described(result)
    return view


def batch_view(batch: Batch) -> View:
    """What fusing several models did."""
    view = View(f"{len(batch.done)} of {len(batch.done) + len(batch.failed)} models fused")
    view.mood = "bad" if batch.failed else "good"
    view.columns = ["model", "written", "largest difference", "speed-up"]
    for result in batch.done:
        comparison = result.comparison
        view.rows.append(
            (
                f"{result.source.checkpoint.path.name}, {result.source.description}",
                str(result.output),
                f"{comparison.max_abs_diff:.1e}" if comparison else "not verified",
                f"{comparison.speed_up:.2f}x" if comparison else "",
            )
        )
    view.described = {
        "fused": [_fused_described(result) for result in batch.done],
        "failed": [{"model_path": str(path), "error": error.message} for path, error in batch.failed],
    }
    return view


def inspect_view(result: Inspection) -> View:
    """What a model file is."""
    checkpoint, identity = result.checkpoint, result.identity
    view = View(str(checkpoint.path), "good" if identity else "bad")
    parameters = None
    if identity:
        view.headline += f": {identity.description}"
        parameters = _parameters(identity.parameters, identity.noted_img_range or 1.0)
        view.facts = [
            ("generation", result.generation or ""),
            ("variant", identity.variant or "a size of its own"),
            ("form", "fused" if identity.fused else "unfused"),
            *((name, _text(value)) for name, value in parameters.items()),
            ("dtype", identity.dtype),
            ("weights from", identity.whereabouts),
        ]
    else:
        view.headline += f": {result.looks_like}"
    view.facts.append(("file", f"{checkpoint.format}, {_bytes(result.size)}"))
    if result.spandrel:
        view.facts.append(("in spandrel", result.spandrel.sentence))
    view.advice = [f"Warning: {warning}." for warning in result.warnings]
    view.described = {
        "generation": result.generation,
        "variant": identity.variant if identity else None,
        "fused": identity.fused if identity else None,
        "parameters": parameters,
        "dtype": identity.dtype if identity else None,
        "container": identity.container if identity else None,
        "prefix": identity.prefix if identity else None,
        "format": checkpoint.format,
        "bytes": result.size,
        "looks_like": result.looks_like,
        "spandrel": {
            "loads": bool(result.spandrel and not result.spandrel.obstacle),
            "architecture": result.spandrel.architecture if result.spandrel else None,
            "obstacle": result.spandrel.obstacle if result.spandrel else None,
        },
        "warnings": result.warnings,
    }
    return view


def _change_view(view: View, outcome: Outcome) -> View:
    view.facts += _whereabouts(outcome)
    view.facts += [("edited version kept as", str(path)) for path in outcome.plan.set_aside]
    view.described = _described(outcome)
    root = outcome.facts.spandrel.site_packages
    changes = [(change.value, path.relative_to(root).as_posix()) for path, change in outcome.plan.changes.items()]
    would_be = "would be " if outcome.dry_run else ""
    view.facts += [(would_be + change, path) for change, path in sorted(changes, key=lambda fact: fact[0])]
    if outcome.dry_run:
        view.diff = "".join(_diff(outcome.plan))
        view.advice.append("Dry run: nothing was changed.")
        view.described["would_change"] = [str(path) for path in outcome.plan.changes]
        view.described["diff"] = view.diff
    return view


def _name(outcome: Outcome) -> str:
    return f"spandrel {outcome.facts.spandrel.version or ''}".rstrip()


def _whereabouts(outcome: Outcome) -> Iterator[tuple[str, str]]:
    found = outcome.facts.spandrel
    yield "spandrel", f"{found.version or 'unknown version'} in {found.package}"
    if found.interpreter:
        yield "python", f"{found.interpreter.version}, {found.interpreter.executable}"
        yield "prefix", found.interpreter.prefix
        for other in found.interpreter.also:
            yield "not used", f"{other}, which the one above hides"
    shipped, there = outcome.facts.shipped.version, outcome.facts.installed_version
    yield "payload", f"{there or 'none'} installed, {shipped} available"


def _described(outcome: Outcome) -> dict[str, Any]:
    found = outcome.facts.spandrel
    return {
        "state": outcome.facts.state.value,
        "spandrel": {"version": found.version, "path": str(found.package)},
        "payload": {"version": outcome.facts.shipped.version, "installed": outcome.facts.installed_version},
        "changed": [str(path) for path in outcome.changed],
    }


def _diff(plan: Plan) -> Iterator[str]:
    """A unified diff of the files that change; those that come or go are listed, which says enough."""
    import difflib  # only a dry run needs it

    for step in plan.steps:
        match step:
            case Put(path, data):
                after = data
            case PutBack(name, path):
                after = name.read_bytes()
            case _:
                continue
        if path.suffix != ".pyc" and plan.changes[path] is Change.CHANGED:
            before = path.read_bytes()
            yield from difflib.unified_diff(_lines(before), _lines(after), str(path), str(path))


def _lines(data: bytes) -> list[str]:
    lines = [line + "\n" for line in data.decode("utf-8", "replace").split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, f"{last}\n\\ No newline at end of file\n"] if last else lines


def _comparison_rows(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    yield (
        f"one run, {comparison.side}x{comparison.side}",
        f"{comparison.seconds_unfused * 1e3:.0f} ms",
        f"{comparison.seconds_fused * 1e3:.0f} ms, {comparison.speed_up:.2f}x as fast",
    )
    yield "largest difference", "", f"{comparison.max_abs_diff:.1e}, in outputs that span {comparison.output_range:.2g}"


def _fused_described(result: Fused) -> dict[str, Any]:
    comparison = result.comparison
    return {
        "model_path": str(result.source.checkpoint.path),
        "output_path": str(result.output),
        "variant": result.source.variant,
        "parameters": _parameters(result.source.parameters, result.img_range),
        "dtype": result.source.dtype,
        "container": result.source.container,
        "fused_layers": result.fused_layers,
        "max_abs_diff": comparison.max_abs_diff if comparison else None,
        "output_range": comparison.output_range if comparison else None,
        "seconds": {"before": comparison.seconds_unfused, "after": comparison.seconds_fused} if comparison else None,
        "weights": {"before": result.counts[0], "after": result.counts[1]},
        "bytes": {"before": result.sizes[0], "after": result.sizes[1]},
    }


def _parameters(parameters: dict[str, Any], img_range: float) -> dict[str, Any]:
    names = ("embed_dim", "depths", "upscale", "in_chans", "out_chans", "mlp_ratio", "lk_kernel", "sk_kernel")
    return {**{name: parameters[name] for name in names}, "img_range": img_range}


def _text(value: object) -> str:
    return (
        " ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
