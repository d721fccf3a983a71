"""The application of the local mesh: says who it is.

    web.py --listen IP:PORT     serves until SIGTERM, then finishes the requests under way
    web.py --check IP:PORT      asks a running one whether it is well

Nothing in it knows of Quorate: `quorate register` and the Envoy beside it do the rest.
"""

import http.client
import http.server
import json
import os
import signal
import socket
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            self.answer({"ok": True})
        else:
            self.answer(
                {
                    "service": "web",
                    "instance": "%s:%d" % self.server.server_address,
                    "host": socket.gethostname(),
                    "process": os.getpid(),
                    "path": self.path,
                }
            )

    def answer(self, message):
        body = json.dumps(message).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    # Connections under way are finished before the process ends.
    daemon_threads = False
    request_queue_size = 128

    def server_bind(self):
        # Without the look-up of the host's name that the base class makes.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()


def address(text):
    ip, port = text.rsplit(":", 1)
    return ip, int(port)


def serve(where):
    Handler.timeout = 5
    server = Server(where, Handler)
    stop = lambda *_: threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


def check(where):
    connection = http.client.HTTPConnection(*where, timeout=2)
    try:
        connection.request("GET", "/healthz")
        sys.exit(connection.getresponse().status != 200)
    except OSError as error:
        sys.exit("no answer: %s" % error)


def main():
    commands = {"--listen": serve, "--check": check}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](address(sys.argv[2]))


if __name__ == "__main__":
    main()
