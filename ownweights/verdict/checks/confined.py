"""The program inside the sandbox: takes a job on standard input, says one JSON object, and ends.

It is started by process.py as a file of its own, so it imports the standard library alone. Limits
hold for every job; `isolated` jobs also give up, for good, before anything foreign runs:

  files      writing, making, removing outside its own folder (Landlock, Linux 5.13 and newer)
  network    sockets of any kind            ┐ a seccomp filter, on x86-64 and 64-bit Arm: these
  processes  starting, exec, signals, trace ┘ calls fail, and so do chmod and chown
  privileges all capabilities, and gaining new ones

Reading files is not prevented. It stops accidents and careless code; it is no wall against code
that was written to break out of this very program, and a kernel bug passes through it.
Invariants: each of these is refused (test_confined_code_cannot*).
Sources: Linux man-pages landlock(7), seccomp(2), capabilities(7); linux/audit.h, linux/bpf_common.h
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import platform
import re
import struct
import sys
from typing import Any

try:
    import resource
except ImportError:  # not on Windows
    resource = None

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22
# the calls that a filter refuses, by machine: (audit word, clone, socket, all others)
MACHINES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, 56, 41, (
        57, 58, 59, 322,  # fork, vfork, execve, execveat
        62, 200, 234, 129, 297, 424,  # kill, tkill, tgkill, rt_(tg)sigqueueinfo, pidfd_send_signal
        101, 310, 311, 438,  # ptrace, process_vm_readv and writev, pidfd_getfd
        90, 91, 268, 452, 92, 93, 94, 260,  # chmod, chown and their kind
        425, 426, 427, 165, 272, 308,  # io_uring, mount, unshare, setns
        321, 248, 249, 250,  # bpf, keys
    )),
    "aarch64": (0xC00000B7, 220, 198, (
        221, 281, 129, 130, 131, 138, 240, 424, 117, 270, 271, 438, 52, 53, 452, 54, 55,
        425, 426, 427, 40, 97, 268, 280, 217, 218, 219,
    )),
}  # fmt: skip
CLONE3 = 435
CLONE_THREAD = 0x10000
EPERM, ENOSYS = 1, 38
WRITES = 0b1_1111_1111_0010  # write a file; remove and make directories, files, links, devices
REFER, TRUNCATE = 1 << 13, 1 << 14


def main() -> None:
    """Read the job, do it, say what came of it."""
    sent = json.loads(sys.stdin.buffer.read())
    say = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    bounds, write, leave = sent["bounds"], say.write, os._exit
    isolation = confine(bounds)
    is_run = bounds["isolated"] != "full" or all(isolation.values())
    said = JOBS[sent["job"]](sent) if is_run else None
    write(json.dumps({"said": said, "isolation": isolation, "is_run": is_run}).encode())
    say.flush()
    leave(0)


def do_regex(sent: dict[str, Any]) -> list[list[str | None] | None]:
    """For each pair the groups, [] for no match, None for what is no pattern."""
    found: list[list[str | None] | None] = []
    flags = re.IGNORECASE if sent["ignore_case"] else 0
    for pattern, text in sent["pairs"]:
        try:
            compiled = re.compile(pattern, flags)
        except (re.error, RecursionError, OverflowError):
            found.append(None)
            continue
        match = compiled.search(text) if sent["search"] else compiled.fullmatch(text)
        found.append([] if match is None else list(match.groups()) or [match[0]])
    return found


def do_code(sent: dict[str, Any]) -> str:
    """Run an answer and then its tests: `passed`, `failed`, or `broken` where an import failed.

    Tests are plain statements, functions without arguments named test*, and unittest's classes.
    """
    names: dict[str, Any] = {"__name__": "answer", "__builtins__": builtins}
    try:
        exec(compile(sent["answer"], "answer", "exec"), names)
        known = dict(names)
        exec(compile(sent["tests"], "tests", "exec"), names)
        for name, value in list(names.items()):
            if known.get(name) is not value:
                _run_tests(name, value)
    except ImportError:
        return "broken"
    except BaseException:  # an answer may well raise SystemExit
        return "failed"
    return "passed"


def _run_tests(name: str, value: Any) -> None:
    unittest = sys.modules.get("unittest")
    if isinstance(value, type):
        if unittest and issubclass(value, unittest.TestCase):
            suite = unittest.defaultTestLoader.loadTestsFromTestCase(value)
            result = unittest.TestResult()
            suite.run(result)
            assert result.testsRun and result.wasSuccessful(), "a unit test failed"
    elif callable(value) and name.startswith("test"):
        value()


JOBS = {"regex": do_regex, "code": do_code}


def confine(bounds: dict[str, Any]) -> dict[str, bool]:
    """Set the limits, and give up what `isolated` says; which of it the kernel granted."""
    limit(bounds)
    if bounds["isolated"] == "no":
        return {}
    is_linux = sys.platform == "linux"
    found = {"files": False, "network": False, "processes": False}
    if is_linux:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        drop_capabilities(libc)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        found["files"] = keep_from_files(libc, os.getcwd())
        found["network"] = found["processes"] = keep_from_calls(libc)
    return found


def limit(bounds: dict[str, Any]) -> None:
    """Memory, processor time, file sizes; no core dump."""
    if resource is None:
        return
    cpu_s = int(bounds["timeout_s"]) + 1
    wanted = {
        "RLIMIT_CORE": 0, "RLIMIT_CPU": cpu_s, "RLIMIT_AS": bounds["memory_bytes"],
        "RLIMIT_FSIZE": bounds["file_bytes"], "RLIMIT_NOFILE": bounds["max_files"],
    }  # fmt: skip
    for name, value in wanted.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # macOS knows RLIMIT_AS and does not grant it
            continue


def drop_capabilities(libc: Any) -> None:
    """Give up what root may do."""
    header = struct.pack("=Ii", 0x20080522, 0)
    libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))


def keep_from_files(libc: Any, folder: str) -> bool:
    """Landlock: nothing is written, made or removed outside the folder."""
    abi = libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        return False
    # without REFER (ABI 2) moving between folders is refused anyway; TRUNCATE came with ABI 3
    handled = WRITES | (REFER if abi >= 2 else 0) | (TRUNCATE if abi >= 3 else 0)
    attributes = struct.pack("=Q", handled)
    rules = libc.syscall(444, ctypes.c_char_p(attributes), ctypes.c_size_t(8), ctypes.c_uint32(0))
    if rules < 0:
        return False
    for path, allowed in ((folder, handled), (os.devnull, handled & (2 | TRUNCATE))):
        inside = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.c_char_p(struct.pack("=Qi", allowed, inside))
        added = libc.syscall(445, rules, 1, rule, ctypes.c_uint32(0))
        os.close(inside)
        if added < 0:
            return False
    return libc.syscall(446, rules, ctypes.c_uint32(0)) == 0


def keep_from_calls(libc: Any) -> bool:
    """A seccomp filter; False on a machine or kernel that has none."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = bytes(filter_program(*machine))
    held = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    return libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0) == 0


def filter_program(audit: int, clone: int, socket: int, others: tuple[int, ...]) -> bytes:
    """The filter in classic BPF: eight bytes a step, jumps count from the step after."""

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, absent = 0x7FFF0000, 0x00050000 | EPERM, 0x00050000 | ENOSYS
    steps = [
        step(load, 4), step(equal, audit, 1, 0), step(give, refuse),  # another way of calling
        step(load, 0), step(at_least, 0x40000000, 0, 1), step(give, refuse),  # x32
        step(equal, CLONE3, 0, 1), step(give, absent),  # its flags are in memory: use clone
    ]  # fmt: skip
    for number in (socket, *others):
        steps += [step(equal, number, 0, 1), step(give, refuse)]
    steps += [
        step(equal, clone, 0, 3), step(load, 16), step(any_bit, CLONE_THREAD, 1, 0),
        step(give, refuse), step(give, allow),
    ]  # fmt: skip
    return b"".join(steps)


if __name__ == "__main__":
    main()
