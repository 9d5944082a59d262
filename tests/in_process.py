"""
The command line in this process: no Python starts, and torch is there already where a test has imported it.

For tests about what is said of many cases. That the script itself does the same, others prove with each command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from click.testing import CliRunner

from aether_install.cli import main


def aether_install(
    *arguments: str | Path, check: bool = True, env: Mapping[str, str | None] | None = None
) -> CompletedProcess[str]:
    """
    Runs the command.

    Args:
        check: whether its exit status has to be 0.
        env: environment variables that are other than this process's; None for one that it must not have.
    """
    done = CliRunner().invoke(main, [str(part) for part in arguments], env=env)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert not check or done.exit_code == 0, f"{arguments} exited with {done.exit_code}\n{done.stdout}\n{done.stderr}"
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def aether_json(*arguments: str | Path, **options: Any) -> dict[str, Any]:
    """Runs the command with --json, whatever its exit status."""
    result: dict[str, Any] = json.loads(aether_install(*arguments, "--json", check=False, **options).stdout)
    return result
