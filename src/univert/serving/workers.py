"""Several worker processes behind one socket: started, watched, replaced where they die, ended together."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from univert.serving.request_logs import log

LOOK_S: Final = 0.2
"""How often the first process looks at its workers and for signals."""

RETRY_S: Final = 2.0
"""How long a worker that could not start is left alone: its successor would hardly fare better at once."""

SILENT_S: Final = 60.0
"""A worker that loads a model on a busy machine may be silent for a while; beyond this it hangs."""

_REPORT_S: Final = 1.0
_LAST_S: Final = 5.0

_SPAWN: Final = multiprocessing.get_context("spawn")


class Worker:
    """A process that serves, as seen from the one that started it.

    Nothing here waits: a worker that is gone or hangs must not keep anyone from the others, nor from a signal.

    Args:
        config: how it serves.
        listener: the socket that all workers share.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        self._reports, reporting = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(config, listener, reporting))
        self._process.start()
        reporting.close()  # now each side's end of the pipe ends with its process
        self._served = False
        self._heard_s = time.monotonic()
        self._ended_s: float | None = None

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """Of the process, negative for a signal; None while it lives."""
        return self._process.exitcode

    def hangs(self) -> bool:
        """Whether it lives and has not been heard of for `SILENT_S`."""
        with contextlib.suppress(EOFError, OSError):  # it is gone
            while self._reports.poll():
                self._served = self._reports.recv()
                self._heard_s = time.monotonic()
        return self.exit_status is None and time.monotonic() - self._heard_s > SILENT_S

    def is_replaceable(self) -> bool:
        """Whether it is gone and another may take its place: at once if it had served."""
        if self.exit_status is None:
            return False
        if self._ended_s is None:
            self._ended_s = time.monotonic()
            log(logging.ERROR, "a worker ended", worker=self.pid, status=self.exit_status)
        return self._served or time.monotonic() - self._ended_s > RETRY_S

    def tell(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.exit_status is None and self.pid is not None:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, and bring it about if it does not come in time."""
        self._process.join(timeout_s)
        if self.exit_status is None:
            log(logging.ERROR, "a worker hangs", worker=self.pid)
            self._process.kill()
            self._process.join()
        self._reports.close()


class Workers:
    """The workers of a service.

    Args:
        config: how each serves, and how many there are.
        listener: the socket that they share.
        stop_s: how long they may take to stop before they are killed.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket, *, stop_s: float) -> None:
        self._config, self._listener, self._stop_s = config, listener, stop_s
        self._workers: list[Worker] = []
        self._told_to_stop = False

    def run(self) -> bool:
        """Serve until SIGTERM or SIGINT. To be called in the main thread.

        Returns:
            whether it was told to stop; false if a worker cannot start, and no other would.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._workers = [self._new() for _ in range(self._config.workers)]
            while not self._told_to_stop:
                time.sleep(LOOK_S)
                if any(worker.exit_status == STARTUP_FAILURE for worker in self._workers):
                    return self._told_to_stop
                self._look()
            return True
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _look(self) -> None:
        for place, worker in enumerate(self._workers):
            if worker.hangs():
                log(logging.ERROR, "a worker hangs", worker=worker.pid, silent_s=SILENT_S)
                worker.tell(signal.SIGKILL)  # seen as gone the next time
            elif worker.is_replaceable():
                worker.wait(0)
                self._workers[place] = self._new()

    def _new(self) -> Worker:
        return Worker(self._config, self._listener)

    def _end(self) -> None:
        for worker in self._workers:
            worker.tell(signal.SIGTERM)
        limit_s = time.monotonic() + self._stop_s
        for worker in self._workers:
            worker.wait(max(0.0, limit_s - time.monotonic()))

    def _stop(self, *_: Any) -> None:
        self._told_to_stop = True


def _serve(config: uvicorn.Config, listener: socket.socket, reports: Connection) -> None:
    """What a worker does."""
    config.configure_logging()
    server = uvicorn.Server(config)
    threading.Thread(target=_report, args=(server, reports), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # the terminal told everyone, and the server has stopped
        server.run(sockets=[listener])


def _report(server: uvicorn.Server, reports: Connection) -> None:
    """Tell the first process that this one lives; without the first process, stop.

    An orphan would hold the port, and nobody would replace or stop it.
    """
    with contextlib.suppress(EOFError, OSError):
        while True:
            reports.send(server.started)
            if reports.poll(_REPORT_S):  # nothing is ever sent this way: what can be read is the end
                reports.recv()
    log(logging.ERROR, "the first process is gone, its worker stops")
    server.should_exit = True  # at once, with no drain: what was taken is answered, the port is free
    time.sleep((server.config.timeout_graceful_shutdown or 0) + _LAST_S)
    os._exit(1)
