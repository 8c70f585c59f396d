"""A TCP proxy for tests, which breaks connections."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


class Cutting:
    """Forwards connections to a server and ends the first few after some bytes of the caller. cut counts those."""

    def __init__(self, upstream: str, cuts: int, after: int, before_cut: Callable[[], None]) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream, self._cuts, self._after, self._before_cut = (host, int(port)), cuts, after, before_cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self.connections = self.cut = 0
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.connections += 1
            server = socket.create_connection(self._upstream)
            self._sockets += [caller, server]
            limit = self._after if self.connections <= self._cuts else None
            for target, arguments in ((self._forward, (caller, server, limit)), (self._forward, (server, caller, None))):
                thread = threading.Thread(target=target, args=arguments)
                self._threads.append(thread)
                thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if limit is not None and (limit := limit - len(data)) < 0:
                    self.cut += 1
                    self._before_cut()
                    break
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # A listener that is only closed doesn't wake the thread that accepts.
        for open_socket in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for open_socket in (self._listener, *self._sockets):
            open_socket.close()


@contextlib.contextmanager
def cutting(upstream: str, cuts: int, after: int, before_cut: Callable[[], None] = lambda: None) -> Iterator[Cutting]:
    proxy = Cutting(upstream, cuts, after, before_cut)
    try:
        yield proxy
    finally:
        proxy.close()
