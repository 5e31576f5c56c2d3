"""Where the processes come from: a process that has everything imported, and no thread and no loop, forks each of them.

    python -m atonce_sim.reality.nursery FD...

It stands in a process group of its own: Ctrl-C is meant for whoever started it. Each FD is a connected socket, and
becomes one node's. When standard input ends (it was closed, or whoever held it is gone, however it went) all are killed
and waited for: they are our children, so their pids can belong to nobody else.
"""

import gc
import os
import signal
import socket
import sys
import traceback

from atonce_sim.reality.node_process import become_node

__all__ = ["main"]


def main() -> None:
    """Fork one for each argument; end them when standard input ends."""
    fds = [int(argument) for argument in sys.argv[1:]]
    gc.collect()
    gc.freeze()  # what was imported stays in pages that all share
    pids: list[int] = []
    try:
        for fd in fds:
            pid = os.fork()
            if pid == 0:
                _live(fd, [other for other in fds if other != fd])
            pids.append(pid)
        for fd in fds:
            os.close(fd)
        sys.stdin.buffer.read()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


def _live(fd: int, others: list[int]) -> None:
    """The child's whole life; nothing of its parent's end is done by it."""
    code = 1
    try:
        # A socket that somebody else holds too would never be seen to close.
        for other in others:
            os.close(other)
        become_node(socket.socket(fileno=fd))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
