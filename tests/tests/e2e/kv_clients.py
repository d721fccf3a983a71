"""Writes to several etcd endpoints at once, as gRPC does by itself: the calls of each thread go round
the endpoints, and nothing is tried again that gRPC would not try again.

    kv_clients.py THREADS IP:PORT,IP:PORT,...

Ends by SIGTERM with the number of writes; each failed one is a line before.
"""

import signal
import sys
import threading

import grpc

DEADLINE_SECONDS = 10
CHANNEL = [("grpc.lb_policy_name", "round_robin")]


def field(number, data):
    """A length-delimited field; the tests' keys and values are short."""
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def write(endpoints, thread, stop, done, failed):
    with grpc.insecure_channel(f"ipv4:{endpoints}", options=CHANNEL) as channel:
        grpc.channel_ready_future(channel).result(timeout=DEADLINE_SECONDS)
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        number = 0
        while not stop.is_set():
            request = field(1, f"direct/{thread}/{number}".encode()) + field(2, b"1")
            number += 1
            try:
                put(request, timeout=DEADLINE_SECONDS)
                done.append(number)
            except grpc.RpcError as error:
                failed.append(f"{number}: {error.code().name}: {error.details()}")


def main():
    threads, endpoints = int(sys.argv[1]), sys.argv[2]
    stop, done, failed = threading.Event(), [], []
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    writers = [
        threading.Thread(target=write, args=(endpoints, thread, stop, done, failed))
        for thread in range(threads)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for line in failed:
        print(f"failed {line}")
    print(f"written {len(done)}")


main()
