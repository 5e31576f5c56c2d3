"""Many datagrams with one system call: `recvmmsg` of Linux, through ctypes.

A datagram that is read by itself costs a system call, a tuple, a string and an `Address` before anybody has looked at
it: of a flood, most are dropped after a look at their first bytes. Here a batch lies in one buffer, and only what is
wanted becomes an object. Where the call is missing there is no reader, and all goes on as without it.
"""

import ctypes
import os
import socket
import struct
import sys
from errno import EACCES, EAGAIN, EINTR, ENOSYS, EPERM
from typing import Final

__all__ = ["HEAD_SIZE", "BulkReader", "bulk_reader"]

HEAD_SIZE: Final = 34
"""Bytes of each datagram that are shown before it is read."""

_BATCH = 64
_ROOM = 2048  # bytes for each; what is longer comes cut short, as from `recvfrom`
_STRIDE = _ROOM + 64  # from one to the next: at a power of two all of them would contend for the same cache lines
_NAME = 28  # sizeof(struct sockaddr_in6), the larger of the two
_MESSAGE = 64  # sizeof(struct mmsghdr) where pointers have 8 bytes
_LENGTH_AT = 56 // 4  # its msg_len, in units of 4 bytes

_HEADS = struct.Struct(f"{HEAD_SIZE}s{_STRIDE - HEAD_SIZE}x")
# sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address, scope
_NAMES = {socket.AF_INET: struct.Struct("2x2s4s20x"), socket.AF_INET6: struct.Struct("2x2s4x16s4x")}


class BulkReader:
    """Reads batches of datagrams from one socket, which does not block. What a batch brought is good until the next."""

    def __init__(self, sock: socket.socket) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._receive = library.recvmmsg  # AttributeError: it is not there
        self._sock = sock
        self._name = _NAMES[sock.family]
        self._data = bytearray(_BATCH * _STRIDE)
        self._view = memoryview(self._data)
        self._names = bytearray(_BATCH * _NAME)
        self._messages = bytearray(_BATCH * _MESSAGE)
        self._spans = bytearray(_BATCH * 16)
        data, names, spans = map(_address_of, (self._data, self._names, self._spans))
        for at in range(_BATCH):
            struct.pack_into("PN", self._spans, at * 16, data + at * _STRIDE, _ROOM)  # struct iovec
            # struct msghdr: name and its length, the spans and how many, no control data. The kernel writes the
            # name's length, which is the same each time, and flags that it does not read.
            struct.pack_into("PI4xPN", self._messages, at * _MESSAGE, names + at * _NAME, _NAME, spans + at * 16, 1)
        self._lengths = memoryview(self._messages).cast("I")[_LENGTH_AT :: _MESSAGE // 4]
        self._call = (ctypes.c_void_p(_address_of(self._messages)), _BATCH, 0, None)
        self.sizes: list[int] = []
        """Bytes of each datagram of the batch."""

    @property
    def was_full(self) -> bool:
        """Whether there may be more at once."""
        return len(self.sizes) == _BATCH

    def is_allowed(self) -> bool:
        """Whether the kernel lets us: some sandboxes know no such call. Reads nothing."""
        messages, _, flags, timeout = self._call
        refused = self._receive(self._sock.fileno(), messages, 0, flags, timeout) < 0
        return not refused or ctypes.get_errno() not in (ENOSYS, EPERM, EACCES)

    def read(self) -> bool:
        """Read a batch; False if there is nothing."""
        count = self._receive(self._sock.fileno(), *self._call)
        if count <= 0:
            self.sizes = []
            error = ctypes.get_errno()
            if error not in (EAGAIN, EINTR):
                raise OSError(error, os.strerror(error))
            return False
        self.sizes = self._lengths[:count].tolist()
        return True

    def heads(self) -> list[bytes]:
        """The first 34 bytes of each; what is shorter has something of earlier ones behind it."""
        return [head for (head,) in _HEADS.iter_unpack(self._view[: len(self.sizes) * _STRIDE])]

    def places(self) -> list[bytes]:
        """Where each came from, as on the wire: 6 or 18 B."""
        names = memoryview(self._names)[: len(self.sizes) * _NAME]
        return [ip + port for port, ip in self._name.iter_unpack(names)]

    def datagram(self, at: int) -> bytes:
        """One of them, whole."""
        return bytes(self._view[at * _STRIDE : at * _STRIDE + self.sizes[at]])


def bulk_reader(sock: socket.socket) -> BulkReader | None:
    """A reader for a UDP socket, None where there is no such system call."""
    if sys.platform != "linux" or struct.calcsize("P") != 8 or sock.family not in _NAMES:
        return None
    try:
        reader = BulkReader(sock)
        return reader if reader.is_allowed() else None
    except (AttributeError, OSError):
        return None


def _address_of(data: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
