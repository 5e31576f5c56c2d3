"""Files on this machine's disk that others send or get: names, parts that are not whole yet, the end of a transfer.

All of it blocks: call it through `Host.offload`. Raises `TransferFailed` with one line that says what is wrong.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
from pathlib import Path
from typing import IO, Final

import msgspec

from dht_atonce.errors import TransferFailed

__all__ = ["MAX_FILE_NAME", "Part", "Source", "checked_name"]

MAX_FILE_NAME: Final = 200
"""Bytes: with `.part` and a dot it must fit into 255."""
_BLOCK: Final = 1 << 20
_SYNC_EVERY: Final = 64 << 20


def checked_name(name: str) -> str:
    """`name`, if it is that of a plain file in a folder and nothing else. Raises `TransferFailed`.

    Nothing with a slash, a leading dot (hidden files, `..`, our own parts) or characters that a terminal would obey.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise TransferFailed(f"{name[:80]!r} is no name for a file here")
    if len(name.encode(errors="surrogatepass")) > MAX_FILE_NAME:
        raise TransferFailed(f"the name {name[:40]!r}… is too long")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TransferFailed(f"{name[:80]!r} is no name for a file here") from None
    return name


def new_hash() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=32)


class Source:
    """A file that is sent. A regular one, and no link if it lies in a folder that is served."""

    def __init__(self, path: Path, *, follow: bool) -> None:
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
            fd = os.open(path, flags)
        except OSError as error:
            raise TransferFailed(f"{path.name} cannot be read: {error.strerror}") from None
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            os.close(fd)
            raise TransferFailed(f"{path.name} is no plain file")
        self._file: IO[bytes] = os.fdopen(fd, "rb", buffering=0)
        self.name = path.name
        self.size = state.st_size
        self.stopped = False
        """Set by whoever does not want what is under way in another thread."""

    def digest(self, count: int) -> bytes:
        """BLAKE2b-256 of the first `count` bytes."""
        found, offset = new_hash(), 0
        while offset < count:
            block = os.pread(self._file.fileno(), min(_BLOCK, count - offset), offset)
            if not block:
                raise TransferFailed(f"{self.name} became shorter while it was read")
            if self.stopped:
                raise TransferFailed(f"{self.name} is not wanted any more")
            found.update(block)
            offset += len(block)
        return found.digest()

    def read(self, offset: int) -> bytes:
        """Some bytes from `offset` on; fewer than the size says if the file shrank."""
        try:
            return os.pread(self._file.fileno(), min(_BLOCK, self.size - offset), offset)
        except OSError as error:
            raise TransferFailed(f"{self.name} cannot be read: {error.strerror}") from None

    def close(self) -> None:
        self._file.close()


class _Sidecar(msgspec.Struct):
    size: int
    digest: bytes


class Part:
    """A file on its way in: `.NAME.part` with what has come, and beside it a small file that says of what whole."""

    def __init__(self, folder: Path, name: str, size: int, digest: bytes) -> None:
        self.path = folder / name
        self.size = size
        self.have = 0
        """Bytes that are there."""
        self._digest = digest
        self._folder = folder
        self._part = folder / f".{name}.part"
        self._about = folder / f".{name}.part.json"
        self._hash = new_hash()
        self._file: IO[bytes] | None = None
        self._unsynced = 0
        self.stopped = False
        """Set by whoever does not want what is under way in another thread."""

    def open(self) -> tuple[int, bytes]:
        """Begin, or go on: how many bytes are there, and their digest."""
        if os.path.lexists(self.path):
            raise TransferFailed(f"{self.path.name} is there already, and nothing is overwritten")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.fdopen(os.open(self._part, flags, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise TransferFailed(f"{self.path.name} cannot be written: {error.strerror}") from None
        _lock(file, self.path.name)
        self._file = file
        try:
            free = os.statvfs(self._folder)
            self.have = min(os.fstat(file.fileno()).st_size, self.size) if self._is_of_this() else 0
            if self.size - self.have > free.f_bavail * free.f_frsize:
                raise TransferFailed(f"{self.path.name} has {self.size} bytes, more than there is room for")
            file.truncate(self.have)
            self._about.write_bytes(msgspec.json.encode(_Sidecar(self.size, self._digest)))
        except OSError as error:
            self.close()
            raise TransferFailed(f"{self.path.name} cannot be written: {error.strerror}") from None
        except TransferFailed:
            self.close()
            raise
        self._hash_what_is_there()
        return self.have, self._hash.digest()

    def start_at(self, offset: int) -> None:
        """The sender sends from here: what we have, or nothing of it."""
        if offset not in (0, self.have):
            raise TransferFailed("the other side begins at a place for which nobody asked")
        if offset < self.have:
            assert self._file is not None
            self._file.truncate(0)
            self.have, self._hash = 0, new_hash()

    def write(self, data: bytes) -> None:
        """More of it."""
        if self.have + len(data) > self.size:
            raise TransferFailed(f"{self.path.name} is larger than was said")
        assert self._file is not None
        try:
            view = memoryview(data)
            while view:
                count = os.pwrite(self._file.fileno(), view, self.have)
                self.have += count
                view = view[count:]
            self._unsynced += len(data)
            if self._unsynced >= _SYNC_EVERY:  # not all at the end, when somebody waits for an answer
                os.fsync(self._file.fileno())
                self._unsynced = 0
        except OSError as error:
            raise TransferFailed(f"{self.path.name} cannot be written: {error.strerror}") from None
        self._hash.update(data)

    def finish(self) -> None:
        """It is whole: check it, and give it its name, unless something else has it by now."""
        assert self._file is not None
        if self.have < self.size:
            raise TransferFailed(f"{self.path.name} ended after {self.have} of {self.size} bytes")
        if self._hash.digest() != self._digest:
            self.discard()
            raise TransferFailed(f"{self.path.name} is not what was promised: its digest is another one")
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._give_name()
            self._about.unlink(missing_ok=True)
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except FileExistsError:
            raise TransferFailed(f"{self.path.name} is there already, and nothing is overwritten") from None
        except OSError as error:
            raise TransferFailed(f"{self.path.name} cannot be written: {error.strerror}") from None

    def _give_name(self) -> None:
        """Unlike a rename, a link never overwrites. Where there are no links, the name is taken first."""
        try:
            os.link(self._part, self.path)
        except FileExistsError:
            raise
        except OSError:
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._part.replace(self.path)
        else:
            self._part.unlink()

    def discard(self) -> None:
        """It is of no use."""
        for path in (self._part, self._about):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave it as it is, to go on some other time; one without a byte is not worth keeping."""
        if self._file is not None and not self._file.closed:
            is_empty = not os.fstat(self._file.fileno()).st_size
            self._file.close()
            if is_empty:
                self.discard()

    def _is_of_this(self) -> bool:
        try:
            about = msgspec.json.decode(self._about.read_bytes(), type=_Sidecar)
        except (OSError, msgspec.DecodeError):
            return False
        return (about.size, about.digest) == (self.size, self._digest)

    def _hash_what_is_there(self) -> None:
        assert self._file is not None
        offset = 0
        while offset < self.have:
            block = os.pread(self._file.fileno(), min(_BLOCK, self.have - offset), offset)
            if not block:
                raise TransferFailed(f"{self.path.name} is being changed by somebody else")
            if self.stopped:
                raise TransferFailed(f"{self.path.name} is not wanted any more")
            self._hash.update(block)
            offset += len(block)


def _lock(file: IO[bytes], name: str) -> None:
    """One transfer of a name at a time: closes the file if there is another."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise TransferFailed(f"{name} is on its way in already") from None
