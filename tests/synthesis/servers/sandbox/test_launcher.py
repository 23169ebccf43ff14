"""The launcher that confines a process, and the folder that goes back to its first state."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthesis.errors import UserError
from synthesis.servers.sandbox.launcher import Isolation, confine, launcher, probe
from synthesis.servers.sandbox.workspace import Workspace

needs_landlock = pytest.mark.skipif(not probe().landlock, reason="the kernel has no Landlock")
needs_network_block = pytest.mark.skipif(not probe().blocks_network, reason="the kernel cannot cut the network")


def run(command: list[str], writable: list[Path], network: bool = False, isolation: Isolation | None = None):
    confined = confine(command, isolation or probe(), writable, network)
    return subprocess.run(confined, capture_output=True, text=True, timeout=20)


ATTACKS = [
    "echo x > {0}/new",
    "echo x > {0}/old",
    ": > {0}/old",
    "rm {0}/old",
    "mkdir {0}/d",
    "ln -s x {0}/l",
    "mv {1}/b {0}/b",
    "ln {0}/old {1}/hard",
    "ln -s {0}/old {1}/soft && echo x > {1}/soft",
]
"""Shell commands that write outside: {0} is the folder outside, {1} the one inside."""


@needs_landlock
def test_writes_inside_work_and_outside_fail(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "old").write_text("old")
    assert (
        run(["sh", "-c", f"echo hi > {inside}/a && mv {inside}/a {inside}/b && cat {outside}/old"], [inside]).returncode
        == 0
    )
    assert (inside / "b").read_text() == "hi\n"
    for attack in ATTACKS:
        done = run(["sh", "-c", attack.format(outside, inside)], [inside])
        assert done.returncode != 0, attack
        assert "denied" in done.stderr.lower() or "cross-device" in done.stderr.lower(), done.stderr
    assert [path.name for path in outside.iterdir()] == ["old"]
    assert (outside / "old").read_text() == "old"


@needs_landlock
def test_children_stay_confined(tmp_path):
    (tmp_path / "in").mkdir()
    code = f"import subprocess; subprocess.run(['sh', '-c', 'echo x > {tmp_path}/escaped'])"
    run([sys.executable, "-c", code], [tmp_path / "in"])
    assert not (tmp_path / "escaped").exists()


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@needs_network_block
@pytest.mark.parametrize("isolation", [probe(), Isolation(probe().landlock, network_namespace=False)])
def test_network_is_cut_unless_asked_for(tmp_path, port, isolation):
    if not isolation.blocks_network:
        pytest.skip("this way of cutting the network is not there")
    dial = [sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=3)"]
    assert run(dial, [tmp_path], network=True, isolation=isolation).returncode == 0
    assert run(dial, [tmp_path], network=False, isolation=isolation).returncode != 0


def test_isolation_says_what_is_in_force():
    assert "not limited" in Isolation().describe()
    assert Isolation(4).blocks_network
    assert not Isolation(3).blocks_network
    assert "Landlock ABI 7" in Isolation(7, network_namespace=True).describe()
    assert "empty network namespace" in Isolation(7, network_namespace=True).describe()


def test_launcher_refuses_rather_than_run_unconfined(tmp_path):
    done = subprocess.run(
        launcher("--landlock", "--rw", str(tmp_path / "missing"), "--", "echo", "ran"), capture_output=True, text=True
    )
    assert done.returncode in (126, 127)
    assert "ran" not in done.stdout
    assert subprocess.run(launcher("--", "no-such-command"), capture_output=True).returncode == 127


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_a_killed_parent_takes_the_server_with_it(tmp_path):
    sleeper = confine(["sleep", "300"], probe(), [tmp_path], network=False)
    code = f"import subprocess, time; p = subprocess.Popen({sleeper!r}); print(p.pid, flush=True); time.sleep(300)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    deadline = time.monotonic() + 10
    while "sleep" not in Path(f"/proc/{child}/comm").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def template(tmp_path):
    folder = tmp_path / "template"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    (folder / "sub" / "deep" / "c.txt").write_text("c")
    (folder / "link").symlink_to("a.txt")
    return folder


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of everything under `folder`."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_text(),
        )
        for path in sorted(folder.rglob("*"))
    }


def _append(data: Path) -> None:
    with (data / "a.txt").open("a") as file:
        file.write("more")


def _same_size_and_time(data: Path) -> None:
    before = (data / "a.txt").stat()
    (data / "a.txt").write_text("z")
    os.utime(data / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


def _swap_folder_for_file(data: Path) -> None:
    (data / "sub" / "deep" / "c.txt").unlink()
    (data / "sub" / "deep").rmdir()
    (data / "sub" / "deep").write_text("no folder")


def _swap_file_for_folder(data: Path) -> None:
    (data / "a.txt").unlink()
    (data / "a.txt" / "x").mkdir(parents=True)


def _lock_folder(data: Path) -> None:
    (data / "sub").chmod(0)


def _move(data: Path) -> None:
    (data / "sub").rename(data / "moved")


@pytest.mark.parametrize(
    "damage",
    [_append, _same_size_and_time, _swap_folder_for_file, _swap_file_for_folder, _lock_folder, _move,
     lambda data: (data / "sub" / "b.txt").unlink(), lambda data: (data / "link").unlink(),
     lambda data: (data / "new" / "x").mkdir(parents=True), lambda data: (data / "a.txt").chmod(0)],
)  # fmt: skip
def test_reset_undoes_any_damage(template, damage):
    with Workspace(template, None, probe()) as workspace:
        first = tree(workspace.data)
        assert first == tree(template)
        assert not workspace.reset()
        damage(workspace.data)
        assert workspace.reset()
        assert tree(workspace.data) == first
        assert not workspace.reset()
        root = workspace.root
    assert not root.exists()


def test_reset_never_follows_a_link_out_of_the_sandbox(template, tmp_path):
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "b.txt").write_text("precious")
    with Workspace(template, None, probe()) as workspace:
        (workspace.data / "a.txt").unlink()
        (workspace.data / "a.txt").symlink_to(outside / "b.txt")
        (workspace.data / "sub").rename(workspace.data / "away")
        (workspace.data / "sub").symlink_to(outside)
        workspace.reset()
        assert tree(workspace.data) == tree(template)
        (workspace.data / "way out").symlink_to(outside)
    assert (outside / "b.txt").read_text() == "precious"
    assert (outside / "deep").is_dir()


def test_template_times_are_fixed_and_read_only_files_become_writable(template):
    (template / "a.txt").chmod(0o444)
    with Workspace(template, None, probe()) as workspace:
        assert (workspace.data / "a.txt").stat().st_mtime == 1_767_225_600
        assert (workspace.data / "a.txt").stat().st_mode & 0o200
    assert not (template / "a.txt").stat().st_mode & 0o200


def test_setup_runs_in_the_copy_and_its_failure_is_told(template, tmp_path):
    setup = tmp_path / "setup.sh"
    setup.write_text("cat a.txt > made.txt")
    with Workspace(template, setup, probe()) as workspace:
        assert (workspace.data / "made.txt").read_text() == "a"
    assert not (template / "made.txt").exists()
    setup.write_text("echo no such luck >&2; exit 4")
    with pytest.raises(UserError, match=r"setup\.sh.*ended with 4: no such luck"):
        Workspace(template, setup, probe()).__enter__()


@needs_landlock
def test_setup_cannot_write_elsewhere(template, tmp_path):
    setup = tmp_path / "setup.sh"
    setup.write_text(f"echo x > {tmp_path}/escaped")
    with pytest.raises(UserError, match="must succeed"):
        Workspace(template, setup, probe()).__enter__()
    assert not (tmp_path / "escaped").exists()


def test_paths_are_mapped_both_ways():
    with Workspace(None, None, probe()) as workspace:
        real = str(workspace.data)
        for logical in (
            "/data",
            "/data/a.txt",
            "read /data/a.txt, then '/data'",
            "ATTACH '/data/x.db' AS y",
            "see /data.",
        ):
            mapped = workspace.inward({"key": [logical, 3, None]})
            assert mapped == {"key": [logical.replace("/data", real), 3, None]}
            assert workspace.outward(mapped) == {"key": [logical, 3, None]}
        for other in ("/database", "/srv/data", "https://example.org/data", "data/x", "/data-2", "/data.txt", "a/data"):
            assert workspace.inward(other) == other
        assert workspace.outward(f"{workspace.root}/home/git/x") == "/home/git/x"


def test_each_server_has_folders_of_its_own():
    with Workspace(None, None, probe()) as workspace:
        one, two = workspace.environment("one"), workspace.environment("../two")
        assert one["HOME"] != two["HOME"]
        assert Path(two["HOME"]).resolve().is_relative_to(workspace.root)
        assert Path(one["TMPDIR"]).is_dir()
