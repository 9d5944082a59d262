"""Whatever happens to a spandrel, in whatever order: it imports, and uninstalling gives it back as it was."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from environments import Snapshot, quietly, snapshot
from faults import REFUSED, SUCCEEDED_ANYWAY, at_step, failing_with, kill, slim_process
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from imports import import_each
from trees import linked_spandrel

from aether_install.errors import AetherInstallError
from aether_install.tree import commands, registry
from aether_install.tree.layout import Spandrel
from aether_install.tree.manifest import MANIFEST_NAME, Manifest, Payload, shipped_payload
from aether_install.tree.state import State

pytestmark = pytest.mark.not_on_windows("processes do not fork")

VERSIONS = ("0.4.1", "0.4.2")

EDIT = b"# edited\n"

FOUND: dict[tuple[bytes, ...], Path] = {}
"""A tree for each content of registry and payload that was come upon."""


@pytest.fixture(scope="module", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    tempfile.tempdir = str(tmp_path_factory.mktemp("histories"))
    with slim_process() as History.elsewhere:
        yield


@cache
def release(version: str) -> Path:
    return linked_spandrel(version, Path(tempfile.mkdtemp()))


def older() -> Payload:
    """A payload with another version, of which every file is another one, and with files that are gone since."""
    files = {name: data + b"\n# older\n" for name, data in shipped_payload().files.items()}
    files["__init__.py"] = files["__init__.py"].replace(b'__version__ = "', b'__version__ = "0.')
    return Payload({**files, "__arch/gone.py": b"", "gone/__init__.py": b"# gone\n"})


def cannot_run() -> None:
    raise AetherInstallError("it does not run")


def do(form: str, root: Path, links: bool, check: Callable[[], None] | None = None) -> None:
    """
    Changes the spandrel in a site-packages folder.

    Args:
        form: one of those below.
        links: whether there are links, as there are none on a memory stick.
    """
    spandrel = Spandrel(root / "spandrel")
    with pytest.MonkeyPatch.context() as patch:
        if not links:
            patch.setattr(os, "supports_follow_symlinks", set())
            patch.setattr(os, "link", lambda *_, **__: failing_with(errno.EPERM)())
        if form == "install older":
            patch.setattr(commands, "shipped_payload", older)
        if form == "uninstall":
            commands.uninstall(spandrel, force=True, progress=quietly)
        else:
            commands.install(spandrel, force=True, check=check, progress=quietly)


def do_with(happen: Callable[[], None], step: int, *arguments: Any) -> int:
    """Has something happen at a step of that."""
    return at_step(step, partial(do, *arguments), happen)


def essence(root: Path) -> Snapshot:
    """Bytes, modes and times of all but the other architectures."""
    return {name: fact[:4] for name, fact in snapshot(root).items() if fact[0] != "link"}


steps = st.integers(1, 100)
forms = st.sampled_from(["install", "uninstall", "install older"])


class History(RuleBasedStateMachine):
    """A site-packages folder to which things happen."""

    elsewhere: ProcessPoolExecutor

    @initialize(version=st.sampled_from(VERSIONS), links=st.booleans())
    def unpack(self, version: str, links: bool) -> None:
        self.root = Path(tempfile.mkdtemp()) / "site-packages"
        shutil.copytree(release(version), self.root, symlinks=True)
        self.spandrel = Spandrel(self.root / "spandrel")
        self.expected = essence(self.root)
        self.links = links

    def work(self, form: str, check: Callable[[], None] | None = None) -> None:
        do(form, self.root, self.links, check)

    def work_with(
        self, happen: Callable[[], None], form: str, step: int, check: Callable[[], None] | None = None
    ) -> int:
        return self.elsewhere.submit(do_with, happen, step, form, self.root, self.links, check).result()

    @property
    def state(self) -> State:
        return commands.status(self.spandrel).before

    @rule(form=forms)
    def run(self, form: str) -> None:
        self.work(form)
        if form == "uninstall":
            self.assert_given_back()
        elif form == "install":
            assert self.state is State.INSTALLED
        assert not [*self.root.rglob("*.aether-new"), *self.root.rglob("*.aether-undo")]

    @rule(form=forms, step=steps, check=st.sampled_from([None, cannot_run]))
    def is_killed(self, form: str, step: int, check: Callable[[], None] | None) -> None:
        """Perhaps while it is undone."""
        self.work_with(kill, form, step, check)

    @rule(form=forms, step=steps, code=st.sampled_from([errno.ENOSPC, errno.EACCES]))
    def fails(self, form: str, step: int, code: int) -> None:
        found = essence(self.root)
        ended = self.work_with(failing_with(code), form, step)
        assert ended in (0, REFUSED, SUCCEEDED_ANYWAY)
        if ended == REFUSED:
            assert essence(self.root) == found

    @rule(form=st.sampled_from(["install", "install older"]))
    def does_not_run(self, form: str) -> None:
        found = snapshot(self.root)
        try:
            self.work(form, cannot_run)
        except AetherInstallError:
            after = snapshot(self.root)
            assert {name: fact[:4] for name, fact in after.items()} == {name: fact[:4] for name, fact in found.items()}

    @precondition(lambda self: (self.spandrel.payload / "__init__.py").exists())
    @rule()
    def is_edited(self) -> None:
        path = self.spandrel.payload / "__init__.py"
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data.removesuffix(EDIT) + EDIT)

    @rule(version=st.sampled_from(VERSIONS))
    def spandrel_is_unpacked_over_it(self, version: str) -> None:
        """Reinstalled or upgraded by what knows nothing of us: its own files are fresh, ours are still there."""
        for info in self.root.glob("spandrel-*.dist-info"):
            if info.name != f"spandrel-{version}.dist-info":
                shutil.rmtree(info)
        for path in release(version).rglob("*"):
            place = self.root / path.relative_to(release(version))
            if path.is_file() and "architectures" not in place.parts[:-1]:
                place.parent.mkdir(exist_ok=True)
                place.unlink(missing_ok=True)
                shutil.copy2(path, place)
        self.link_architectures(version)
        self.expected = essence(release(version))

    def link_architectures(self, version: str) -> None:
        for path in list(self.spandrel.architectures.iterdir()):
            if path.is_symlink():
                path.unlink()
        for path in (release(version) / "spandrel/architectures").iterdir():
            (self.spandrel.architectures / path.name).symlink_to(os.readlink(path))

    @invariant()
    def a_registry_that_names_a_payload_has_all_of_one_beside_it(self) -> None:
        source = self.spandrel.registry.read_bytes()
        compile(source, "main_registry.py", "exec")
        if registry.unpatch(source) != source:
            names = sorted(self.spandrel.payload.rglob("*.py"))
            there = {path.relative_to(self.spandrel.payload).as_posix(): path.read_bytes() for path in names}
            unedited = {name: data.removesuffix(EDIT) for name, data in there.items()}
            manifest = Manifest.decode((self.spandrel.payload / MANIFEST_NAME).read_bytes())
            versions = [(payload.files, payload.manifest) for payload in (shipped_payload(), older())]
            assert (unedited, manifest) in versions, there.keys()
            key = (source, *(path.read_bytes() for path in names))
            if key not in FOUND:
                FOUND[key] = shutil.copytree(self.root, Path(tempfile.mkdtemp()) / "site-packages", symlinks=True)

    def assert_given_back(self) -> None:
        for edited in self.root.rglob("*.aether-edited"):  # which the user has looked at
            edited.unlink()
        self.work("uninstall")
        assert essence(self.root) == self.expected
        assert self.state is State.ABSENT

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.work("uninstall")
            self.assert_given_back()


History.TestCase.settings = settings(
    max_examples=40, stateful_step_count=12, phases=[Phase.generate], derandomize=True, deadline=None, database=None
)
test_uninstalling_gives_back_what_was_there_whatever_happened = History.TestCase


def test_what_was_come_upon_imports() -> None:
    if not FOUND:  # run alone
        History.TestCase("runTest").runTest()
    whole = [(folder / "spandrel/architectures/AetherNet/__init__.py").exists() for folder in FOUND.values()]
    trees = [folder for _, folder in sorted(zip(whole, FOUND.values(), strict=True))][:6]
    for folder, answer in zip(trees, import_each(trees), strict=True):
        assert answer.clean, (folder, answer)
