"""A proxyless gRPC client: asks the etcd API behind `xds:///SERVICE` for its status, COUNT times.

    xds_client.py SERVICE COUNT

Prints one line for each answer: how many bytes it has.
"""

import sys

import grpc


def main():
    service, count = sys.argv[1], int(sys.argv[2])
    with grpc.insecure_channel("xds:///" + service) as channel:
        status = channel.unary_unary("/etcdserverpb.Maintenance/Status")
        for _ in range(count):
            print(len(status(b"", timeout=30, wait_for_ready=True)), flush=True)


if __name__ == "__main__":
    main()
