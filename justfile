# Shortcuts, nothing more: the two commands that matter are scripts/up and scripts/test.

set shell := ["bash", "-uc"]

# Everything that CI checks.
verify:
    scripts/test

# Writes what can be mended by a program.
fix:
    cargo fmt --all && source scripts/env.sh && cargo clippy --workspace --all-targets --fix --allow-dirty

# Tests whose name holds the filter, or all but the end-to-end ones.
test filter='not binary(e2e)':
    source scripts/env.sh && cargo nextest run --workspace -E '{{filter}}'

# Replays the seeded simulations: SEED=… just sim.
sim:
    source scripts/env.sh && cargo nextest run --workspace -E 'test(/sim/)'

# The figures of a mesh on this machine.
measure:
    scripts/measure

# One process with all services.
dev:
    scripts/up --dev

# The mesh of compose.yaml.
up:
    scripts/up

# Ends it, with its data.
down:
    scripts/compose down --volumes

# What its containers say.
logs *services:
    scripts/compose logs --tail=100 --follow {{services}}

# What the front proxy has been told.
envoy-config:
    curl -s '127.0.0.1:9901/config_dump?include_eds'
