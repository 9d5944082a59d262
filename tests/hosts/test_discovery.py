"""The hosts of a machine: found whole, where their installers, launchers and users put them."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments import snapshot
from machines import Machine, machine_with_fourteen_hosts

from aether_install.hosts.discovery import Discovery, discover
from aether_install.hosts.selection import locate_host, resolve
from aether_install.hosts.system import System


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return machine_with_fourteen_hosts(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def system(machine: Machine) -> System:
    return System("linux", machine.environment, machine.home)


@pytest.fixture(scope="module")
def found(system: System) -> Discovery:
    return discover(system=system)


def test_all_hosts_are_found_and_each_once(machine: Machine, found: Discovery) -> None:
    assert {host.id: host.folder for host in found.hosts} == machine.folders
    assert found.complete


def test_the_spandrel_is_the_one_that_the_host_imports(machine: Machine, found: Discovery) -> None:
    for host in found.hosts:
        assert host.spandrel is not None
        assert host.spandrel.version == machine.versions[host.id]
        assert host.state == "absent"
        if host.id == "vs-spandrel":
            assert host.python is None
        else:
            assert host.python == machine.python(host.id)
            located = locate_host(host)
            assert located.interpreter is not None
            assert located.spandrel == host.spandrel, "the Python itself says the same"


def test_looking_leaves_no_trace(machine: Machine, system: System) -> None:
    before = snapshot(machine.root, bytecode=True)
    discover(system=system)
    assert snapshot(machine.root, bytecode=True) == before


def test_a_host_is_meant_by_its_id_its_folder_or_a_part_of_it(
    machine: Machine, system: System, found: Discovery
) -> None:
    for host in found.hosts:
        for value in (host.id, host.id.upper(), str(host.folder), str(host.folder / "models")):
            if Path(value).is_absolute() and not Path(value).is_dir():
                continue
            assert resolve(value, found, system) == host
    inner = machine.folders["swarmui"] / "dlbackend" / "ComfyUI"
    assert resolve(str(inner), found, system).python == machine.python("swarmui")
