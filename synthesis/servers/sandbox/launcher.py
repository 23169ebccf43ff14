"""A launcher that confines a server: it may write in its sandbox only, and has no network.

This very file, run as a program; it needs no root and no package, only the Landlock and namespace calls of Linux:

    python -m synthesis.servers.sandbox.launcher --limits --landlock --no-network --rw DIR -- COMMAND ARGUMENT...

It applies what it is told or fails with status 126; `probe` says beforehand what the kernel has. Standard library only:
the launcher runs in an isolated interpreter that sees no other package.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Landlock's system call numbers, the same on every architecture."""
DEATH_SIGNAL, NO_NEW_PRIVILEGES = 1, 38
NEW_USER_NAMESPACE, NEW_NETWORK_NAMESPACE = 0x10000000, 0x40000000
LIMITS = {"CPU": 3600, "DATA": 4 << 30, "FSIZE": 1 << 30, "NOFILE": 1024, "CORE": 0}
"""Resource limits of each process of a server: seconds, bytes, and how many files it may have open.

Memory is limited by what can be written to (DATA), not by address space (AS): node reserves far more of that than it
uses. A server that meets a limit gets an error or dies, and is then treated as any that dies.
"""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")


@dataclass(frozen=True)
class Isolation:
    """What the kernel offers for holding a server in."""

    landlock: int = 0
    """Landlock's version (ABI); 0 where there is none."""
    network_namespace: bool = False
    """Whether an empty network namespace can be made without more rights than the user has."""

    @property
    def blocks_network(self) -> bool:
        """Whether TCP at least can be forbidden."""
        return self.network_namespace or self.landlock >= 4

    def describe(self) -> str:
        """One line for people: the dataset card holds it."""
        files = (
            f"writes only inside the sandbox (Landlock ABI {self.landlock})" if self.landlock else "writes not limited"
        )
        if self.network_namespace:
            network = "no network (empty network namespace)"
        else:
            network = "no TCP (Landlock)" if self.blocks_network else "network not limited"
        parts = [files, network, "reads not limited", "temporary HOME, TMPDIR and working folder"]
        if sys.platform == "linux":
            parts.append(
                f"a process gets {LIMITS['CPU']} s of processor time, {LIMITS['DATA'] >> 30} GiB of memory, "
                f"{LIMITS['FSIZE'] >> 30} GiB a file, {LIMITS['NOFILE']} open files"
            )
        return "; ".join(parts)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32)]


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    version: int = _libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, version)


def _restrict(folders: list[str], version: int, block_tcp: bool) -> None:
    """Let this process, and all that it starts, write under `folders` only (and to the harmless devices)."""
    libc = _libc()
    write = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
    write |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    on_file = write & (1 << 1 | 1 << 14)
    ruleset = _Ruleset(write, 3 if block_tcp and version >= 4 else 0, 3 if version >= 6 else 0)
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    rules = _checked(libc.syscall(CREATE_RULESET, ctypes.byref(ruleset), size, ctypes.c_uint32(0)))
    for path in [*folders, *filter(os.path.exists, DEVICES)]:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathRule(write if os.path.isdir(path) else on_file, fd)
        _checked(libc.syscall(ADD_RULE, rules, 1, ctypes.byref(rule), ctypes.c_uint32(0)))
        os.close(fd)
    _checked(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(RESTRICT_SELF, rules, ctypes.c_uint32(0)))
    os.close(rules)


def _limit_resources() -> None:
    """Apply `LIMITS`, or what stricter limits this process has already."""
    import resource

    for name, limit in LIMITS.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _leave_network() -> None:
    """Move this process into an empty network namespace: no interface, so no TCP, no UDP, no DNS."""
    libc, user, group = _libc(), os.geteuid(), os.getegid()
    if user == 0 and libc.unshare(NEW_NETWORK_NAMESPACE) == 0:
        return
    _checked(libc.unshare(NEW_USER_NAMESPACE | NEW_NETWORK_NAMESPACE))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def launcher(*arguments: str) -> list[str]:
    """The command line that runs this file as a program, whatever the working folder is."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *arguments]


@cache
def probe() -> Isolation:
    """What isolation this machine offers, found by trying it in a child process."""
    if sys.platform != "linux":
        return Isolation()
    done = subprocess.run(launcher("--probe"), capture_output=True, text=True, check=True, timeout=30)
    return Isolation(**json.loads(done.stdout))


def confine(command: list[str], isolation: Isolation, writable: list[Path], network: bool) -> list[str]:
    """`command` as it must be started so that it writes under `writable` only, and without network unless `network`."""
    if sys.platform != "linux":
        return command
    flags = ["--limits", *(["--landlock"] if isolation.landlock else [])]
    flags += ["--no-network"] if isolation.blocks_network and not network else []
    flags += [word for folder in writable for word in ("--rw", str(folder))]
    return launcher(*flags, "--", *command)


def _try_leaving_network() -> bool:
    try:
        _leave_network()
    except OSError:
        return False
    return True


def main(argv: list[str]) -> NoReturn:
    """Entry of the launcher: confine this process, then become the command. Status 126 where it cannot confine."""
    parser = argparse.ArgumentParser(prog="python -m synthesis.servers.sandbox.launcher", description=__doc__)
    parser.add_argument("--probe", action="store_true", help="print what this machine offers, as JSON")
    parser.add_argument("--limits", action="store_true", help="limit processor time, memory, file size and open files")
    parser.add_argument("--landlock", action="store_true", help="forbid writes outside the --rw folders")
    parser.add_argument("--no-network", action="store_true", help="an empty network namespace, or else no TCP")
    parser.add_argument("--rw", action="append", default=[], metavar="DIR", help="a folder that may be written to")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args(argv)
    version = _landlock_version()
    if options.probe:
        print(json.dumps(asdict(Isolation(version, _try_leaving_network()))))
        sys.exit(0)
    if not options.command:
        parser.error("no command")
    try:
        left = options.no_network and _try_leaving_network()
        if options.no_network and not left and not (options.landlock and version >= 4):
            raise OSError("the network cannot be forbidden here")
        if options.landlock:
            _restrict(options.rw, version, block_tcp=options.no_network)
        if options.limits:
            _limit_resources()
        if sys.platform == "linux":
            _checked(_libc().prctl(DEATH_SIGNAL, 9, 0, 0, 0))
        os.execvp(options.command[0], options.command)
    except OSError as error:
        print(f"sandbox: {' '.join(options.command[:1])}: {error}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main(sys.argv[1:])
