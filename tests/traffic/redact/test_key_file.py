"""The key that names placeholders: who may read it, who makes it, what if it is broken."""

from __future__ import annotations

import hashlib
import hmac
import multiprocessing
import os
import re
import subprocess
import sys
from base64 import b32encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic.redact import KINDS, Placeholders, Redactor
from ownweights.traffic.redact.placeholder import KEY_NAME, PLACEHOLDER, read_key, written_alike

MAKE = """
import sys
from pathlib import Path
from ownweights.core.project import Project
from ownweights.traffic.redact import Placeholders
sys.stdin.readline()
print(Placeholders(Project(Path(sys.argv[1]))).of("email", "ana@example.org"))
"""


def key_of(project: Project) -> Path:
    return project.store_dir / KEY_NAME


def test_processes_that_need_a_key_at_once_have_the_same(project: Project) -> None:
    command = [sys.executable, "-c", MAKE, str(project.root)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    told = {process.communicate("go\n")[0].strip() for process in started}
    assert all(process.returncode == 0 for process in started)
    assert told == {Placeholders(project).of("email", "ana@example.org")}
    assert [path.name for path in project.store_dir.iterdir()] == [KEY_NAME]  # no draft is left


def _key(path: str) -> str:
    return read_key(Path(path)).hex()


def test_threads_and_forks_of_one_process_have_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / KEY_NAME
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert len(set(pool.map(_key, [str(path)] * 8))) == 1
    assert read_key(path).hex() == path.read_text().strip()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    (tmp_path / "store").mkdir()
    before = os.umask(umask)
    try:
        if umask == 0o777 and os.getuid() != 0:
            pytest.skip("a file that its owner cannot read is none to read")
        read_key(tmp_path / "store" / KEY_NAME)
    finally:
        os.umask(before)
    mode = (tmp_path / "store" / KEY_NAME).stat().st_mode & 0o777
    assert mode & 0o077 == 0 and mode == 0o600 & ~umask


def test_a_key_is_drawn_and_32_bytes(tmp_path: Path) -> None:
    keys = [read_key(tmp_path / str(place)) for place in range(8)]
    assert len(set(keys)) == 8 and {len(key) for key in keys} == {32}


DAMAGED = {
    "empty": b"",
    "a byte short": b"ab" * 31,
    "a byte long": b"ab" * 33,
    "half a byte short": b"ab" * 31 + b"a",
    "no hexadecimal": b"zz" * 32,
    "raw bytes": bytes(range(32)),
    "nulls of a torn write": b"\0" * 65,
    "utf-16": ("ab" * 32).encode("utf-16"),
    "a mark before it": b"\xef\xbb\xbf" + b"ab" * 32,
    "a name before it": b"key=" + b"ab" * 32,
    "cut in the middle": (b"ab" * 32)[:40],
    "two of them": b"ab" * 32 + b"\n" + b"cd" * 32,
    "0x": b"0x" + b"ab" * 32,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_key_is_refused_and_kept(project: Project, content: bytes) -> None:
    """Nothing is masked under another key in silence, and nothing of the file is told."""
    key_of(project).parent.mkdir(parents=True)
    key_of(project).write_bytes(content)
    redactor = Redactor(("email",), Placeholders(project))
    with pytest.raises(StoreError, match=r"expected 64 hexadecimal digits") as raised:
        redactor.texts(["ana@example.org"])
    assert key_of(project).read_bytes() == content
    assert "ana" not in str(raised.value).replace(str(project.root), "")
    assert "abab" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("content", ["ab" * 32, "AB" * 32 + "\n", " ".join(["ab"] * 32) + "\r\n"])
def test_a_key_that_an_editor_touched_is_the_same(tmp_path: Path, content: str) -> None:
    (tmp_path / KEY_NAME).write_bytes(content.encode())
    assert read_key(tmp_path / KEY_NAME) == b"\xab" * 32


def test_a_key_that_is_no_file_is_refused(project: Project) -> None:
    key_of(project).mkdir(parents=True)
    with pytest.raises(StoreError, match="IsADirectoryError"):
        Placeholders(project).of("email", "ana@example.org")


def test_a_key_that_leads_nowhere_is_refused(project: Project) -> None:
    key_of(project).parent.mkdir(parents=True)
    key_of(project).symlink_to("nowhere")
    with pytest.raises(StoreError, match="holds no key"):
        Placeholders(project).of("email", "ana@example.org")
    assert key_of(project).is_symlink()


def test_a_store_that_cannot_be_made_lets_nothing_through(project: Project) -> None:
    project.root.mkdir(parents=True)
    project.store_dir.write_text("a file where the folder should be")
    redactor = Redactor(("email",), Placeholders(project))
    with pytest.raises(StoreError, match="holds no key"):
        redactor.texts(["ana@example.org"])


def test_no_key_is_made_before_something_is_masked(project: Project) -> None:
    redactor = Redactor(KINDS, Placeholders(project), recogniser=lambda text: ())
    assert redactor.texts(["nobody"]) == ["nobody"] and not key_of(project).exists()


def test_a_key_is_read_once(project: Project) -> None:
    """A gateway that runs goes on with its key, whatever is done to the file."""
    placeholders = Placeholders(project)
    first = placeholders.of("email", "ana@example.org")
    key_of(project).write_text("broken")
    assert placeholders.of("email", "ana@example.org") == first


@given(st.sampled_from(KINDS), st.text())
def test_placeholder_matches_hmac(
    tmp_path_factory: pytest.TempPathFactory, kind: str, value: str
) -> None:
    """RFC 2104 by hand: two hashes, of the key with 0x36 and with 0x5c before what they take."""
    project = Project(tmp_path_factory.getbasetemp() / "hmac")
    made = Placeholders(project).of(kind, value)
    key = read_key(key_of(project)).ljust(64, b"\0")
    told = f"{kind}\0{written_alike(kind, value)}".encode()
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + told).digest()
    digest = hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()
    assert hmac.digest(key, told, "sha256") == digest
    assert made == f"<{kind.upper()}_{b32encode(digest).decode()[:10].lower()}>"
    assert PLACEHOLDER.fullmatch(made)


@given(st.sampled_from(KINDS), st.text())
def test_written_alike_twice_is_written_alike(kind: str, value: str) -> None:
    once = written_alike(kind, value)
    assert written_alike(kind, once) == once


@given(st.sampled_from(["iban", "card", "ssn", "phone"]), st.text("0123456789AZaz", min_size=1))
def test_written_alike_of_numbers_does_not_see_what_parts_them(kind: str, value: str) -> None:
    parted = re.sub(r"(?<=.)(?=.)", "-", value)
    wide = value.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    assert written_alike(kind, parted) == written_alike(kind, wide) == value.upper()


def test_a_million_values_would_share_few_placeholders(project: Project) -> None:
    """50 bits: of 20,000 values, two share one with a chance of 2 in ten million."""
    placeholders = Placeholders(project)
    assert len({placeholders.of("email", f"u{n}@example.org") for n in range(20_000)}) == 20_000
