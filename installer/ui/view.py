"""A result as it is shown: for people as a headline, facts, tables and advice, for scripts as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def without_marks(text: str) -> str:
    """Without the asterisks that mark, in what is known of hosts, what is written on a button."""
    return text.replace("*", "")


@dataclass
class View:
    """
    A result, ready to be shown.

    Attributes:
        headline: one line that says it all.
        mood: ``good``, ``bad`` or ``none`` where nothing happened.
        facts: names and values.
        details: more of them, for those who ask for all.
        summary: facts that stand for the details where nobody does.
        columns, rows: a table.
        diff: a unified diff.
        advice: what to know or do next.
        described: the same for scripts.
    """

    headline: str
    mood: str = "good"
    facts: list[tuple[str, str]] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)
    summary: list[tuple[str, str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    diff: str = ""
    advice: list[str] = field(default_factory=list)
    described: dict[str, Any] = field(default_factory=dict)
