"""The client library's wheel, alone in an environment: its examples, its types, what may be beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.consumers import examples, installed
from tests.consumers.conftest import Target
from tests.consumers.installed import REPOSITORY, Environment
from tests.docs.blocks import load

EXAMPLES = REPOSITORY / "clients" / "python"
RULES = REPOSITORY / "third_party" / "proto" / "buf" / "validate" / "validate.proto"

READS_A_RULE = """
field = task_service_pb2.DESCRIPTOR.message_types_by_name["CreateTaskRequest"].fields_by_name["request_id"]
assert field.GetOptions().Extensions[validate_pb2.field].string.max_len == 64
"""
CHECKS_A_MESSAGE = """
try:
    protovalidate.validate(task_service_pb2.CreateTaskRequest(agent="a agent"))
except protovalidate.ValidationError as error:
    assert {v.proto.rule_id for v in error.violations} == {"string.pattern", "required"}, error.violations
else:
    raise AssertionError("a message that breaks two rules is taken")
"""


@pytest.fixture
def copy(environment: Environment, tmp_path: Path) -> Environment:
    """Return the environment to put something beside the wheel."""
    return Environment(Path(shutil.copytree(environment.folder, tmp_path / "venv", symlinks=True)))


@pytest.mark.parametrize("example", ["sync_example.py", "asyncio_example.py"])
async def test_an_example_does_its_job_with_nothing_but_the_wheel(
    environment: Environment, target: Target, tmp_path: Path, example: str
) -> None:
    program = shutil.copy(EXAMPLES / example, tmp_path)
    lines = await examples.said(
        environment.python, "-W", "error", program, *target, cwd=tmp_path, variables=environment.variables
    )
    examples.check(lines)


def test_every_module_of_the_wheel_is_imported_without_a_warning_or_the_validation_rules(
    environment: Environment, wheels: dict[str, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheels["fleetwright"]) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".py")]
    modules = sorted(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in names)
    assert "fleetwright.v1.task_service_pb2_grpc" in modules
    plain = [name for name in modules if not name.startswith("fleetwright.verify")]
    code = f"import sys, {', '.join(plain)}\nprint('buf' in sys.modules)"
    done = environment.run("-W", "error", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_verifier_needs_its_extra_and_nothing_of_the_server(
    copy: Environment, wheels: dict[str, Path], tmp_path: Path
) -> None:
    installed.install(copy, wheels["fleetwright"], extras=["verify"])
    with zipfile.ZipFile(wheels["fleetwright"]) as wheel:
        files = [name for name in wheel.namelist() if name.startswith("fleetwright/verify/")]
    modules = sorted(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in files)
    assert "fleetwright.verify.bundle" in modules
    code = f"import sys, {', '.join(modules)}\nprint('grpc' in sys.modules)"
    done = copy.run("-W", "error", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("order", ["validate first", "fleetwright first"])
def test_the_stubs_work_beside_another_version_of_the_validation_rules(
    copy: Environment, tmp_path: Path, order: str
) -> None:
    other = tmp_path / "other" / "buf" / "validate" / "validate.proto"
    other.parent.mkdir(parents=True)
    other.write_text(RULES.read_text("utf-8") + "\nmessage OfAnotherVersion {}\n", encoding="utf-8")
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path / 'other'}"]
    subprocess.run([*protoc, f"--python_out={copy.packages}", "buf/validate/validate.proto"], check=True)
    imports = ["from buf.validate import validate_pb2", "from fleetwright.v1 import task_service_pb2"]
    code = "\n".join([*(imports if order == "validate first" else reversed(imports)), READS_A_RULE])
    done = copy.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ["protovalidate first", "fleetwright first"])
def test_protovalidate_in_the_same_process_checks_messages_of_the_wheel(
    copy: Environment, tmp_path: Path, order: str
) -> None:
    installed.add(copy, "protovalidate")
    imports = ["import protovalidate", "from fleetwright.v1 import task_service_pb2"]
    code = "\n".join([*(imports if order == "protovalidate first" else reversed(imports)), CHECKS_A_MESSAGE])
    done = copy.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def mypy(environment: Environment, program: Path) -> subprocess.CompletedProcess[str]:
    """Check a program outside the repository as its owner would."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.mypy"]
    return subprocess.run(
        [*command, "--python-executable", environment.python, program.name],
        cwd=program.parent,
        env=environment.variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_consumer_is_checked_by_mypy_strict(environment: Environment, tmp_path: Path) -> None:
    program = tmp_path / "consumer.py"
    readme = (REPOSITORY / "proto" / "python" / "README.md").read_text("utf-8")
    program.write_text(readme.split("```python\n")[1].split("```")[0], encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        shutil.copy(example, tmp_path)
        program.write_text(f"import {example.stem}\n{program.read_text('utf-8')}\nprint({example.stem})\n")
    done = mypy(environment, program)
    assert done.returncode == 0, done.stdout + done.stderr

    program.write_text(
        "from fleetwright.client import connect\n"
        "from fleetwright.v1 import task_service_pb2\n"
        "task_service_pb2.CreateTaskRequest(agent=1)\n"
        'connect("localhost:7444", "identity")\n'
    )
    done = mypy(environment, program)
    assert 'Argument "agent" to "CreateTaskRequest" has incompatible type "int"' in done.stdout
    assert 'Argument 2 to "connect" has incompatible type "str"' in done.stdout


def required(wheel: Path) -> tuple[str, list[str]]:
    """Return a wheel's version and what it requires."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(name).decode())
    return fields["Version"], fields.get_all("Requires-Dist", [])


def test_no_file_belongs_to_both_wheels(wheels: dict[str, Path]) -> None:
    names = {}
    for distribution, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as archive:
            names[distribution] = set(archive.namelist())
    assert set(names) == {"fleetwright", "fleetwright_controlplane"}
    assert names["fleetwright"] & names["fleetwright_controlplane"] == set()
    assert {name.split("/")[0].split("-")[0] for name in names["fleetwright"]} == {"fleetwright"}
    assert {"fleetwright/py.typed", "fleetwright/contract.binpb"} <= names["fleetwright"]
    assert "controlplane/cli/main.py" in names["fleetwright_controlplane"]


def test_the_control_plane_requires_the_client_library_of_its_own_version(wheels: dict[str, Path]) -> None:
    version, requires = required(wheels["fleetwright_controlplane"])
    assert f"fleetwright=={version}" in requires
    assert required(wheels["fleetwright"])[0] == version


@pytest.mark.slow
def test_the_same_sources_make_the_same_wheels_whatever_their_modes_and_times(tmp_path: Path) -> None:
    sources = installed.copy_sources(tmp_path / "sources")
    first = installed.build(tmp_path / "first", sources, SOURCE_DATE_EPOCH="1767225600")
    again = installed.copy_sources(tmp_path / "again")
    for path in again.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # as a checkout with another umask has it
        os.utime(path, (0, 0))
    second = installed.build(tmp_path / "second", again, SOURCE_DATE_EPOCH="1767225600")
    assert len(first) == 2
    assert {name: path.read_bytes() for name, path in first.items()} == {
        name: path.read_bytes() for name, path in second.items()
    }
    with zipfile.ZipFile(first["fleetwright"]) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {2026}


@pytest.mark.slow
def test_what_an_earlier_build_left_behind_is_not_packed(tmp_path: Path) -> None:
    sources = installed.copy_sources(tmp_path / "sources")
    stale = sources / "proto" / "python" / "build" / "lib" / "fleetwright" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    wheel = installed.build(tmp_path / "wheels", sources, SOURCE_DATE_EPOCH="1767225600")["fleetwright"]
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if "stale" in name] == []


def test_without_a_commit_to_take_the_time_from_none_is_built(tmp_path: Path) -> None:
    sources = installed.copy_sources(tmp_path / "sources")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        installed.build(tmp_path / "wheels", sources)
    assert "set SOURCE_DATE_EPOCH" in refused.value.stderr
    assert list((tmp_path / "wheels").iterdir()) == []


def reached(done: subprocess.CompletedProcess[str]) -> None:
    """Check that pip installed; skip where no package index can be reached, but not in CI."""
    unreachable = "No matching distribution" in done.stderr and "CI" not in os.environ
    if done.returncode and unreachable:
        pytest.skip("the package index is out of reach")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_commands_of_the_document_install_the_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    blocks = load(REPOSITORY / "docs" / "integrators.md").commands()
    (block,) = (block for block in blocks if block.marks.elsewhere == "tests/consumers/test_python_client.py")
    (tmp_path / "dist").mkdir()
    shutil.copy(wheels["fleetwright"], tmp_path / "dist")
    reached(
        subprocess.run(
            ["bash", "-ec", "\n".join(block.lines)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    )
    installed_there = Environment(tmp_path / "client")
    done = mypy(installed_there, Path(shutil.copy(EXAMPLES / "sync_example.py", tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
async def test_the_lower_bounds_are_true(wheels: dict[str, Path], target: Target, tmp_path: Path) -> None:
    environment = installed.make(tmp_path / "lowest")
    _, requires = required(wheels["fleetwright"])
    lowest = [text.split(",")[0].replace(">=", "==") for text in requires if "extra" not in text]
    assert len(lowest) == 3
    reached(installed.pip(environment, wheels["fleetwright"], *lowest))
    lines = await examples.said(
        environment.python,
        EXAMPLES / "sync_example.py",
        *target,
        cwd=tmp_path,
        variables=environment.variables,
    )
    examples.check(lines)
