"""Disks of a world: they survive the death of the process that used them, and no two processes use one at a time."""

from dht_atonce.disk import MemoryDisk
from dht_atonce.errors import ProfileInUse

__all__ = ["VirtualDisk", "VirtualDisks"]


class VirtualDisks:
    """All folders of a world, by path. A disk can be carried to another host."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, bytes]] = {}
        self._in_use: dict[str, VirtualDisk] = {}

    def open(self, path: str) -> "VirtualDisk":
        """Raises `ProfileInUse`."""
        if path in self._in_use:
            raise ProfileInUse(f"another process uses the profile {path}")
        disk = self._in_use[path] = VirtualDisk(self, path, self._files.setdefault(path, {}))
        return disk

    def release(self, disk: "VirtualDisk") -> None:
        """Its process let go of it, or died."""
        if self._in_use.get(disk.path) is disk:
            del self._in_use[disk.path]


class VirtualDisk(MemoryDisk):
    """One folder in the hands of one process."""

    def __init__(self, disks: VirtualDisks, path: str, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files
        self.path = path
        self._disks = disks
        self._is_cut = False

    def write(self, name: str, data: bytes) -> None:
        if not self._is_cut:
            self.files[name] = data

    def cut(self) -> None:
        """The process is dead: whatever of it still runs here writes nothing any more."""
        self._is_cut = True
        self._disks.release(self)

    def close(self) -> None:
        self._disks.release(self)
