#!/bin/sh
# Checks what is in this directory as far as a machine without a container engine can.
#
#   deploy/check.sh            needs Rust, a C compiler and Python 3; uses systemd-analyze and shellcheck where they are
#
# Ends with 0 when nothing failed. What could not be looked at is listed as skipped, never as passed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
started=''
failures=0
skipped=0

stop() {
    for process in $started; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    started=''
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

passed() { echo "passed   $1"; }
skip() { skipped=$((skipped + 1)); echo "skipped  $1: $2"; }
# check NAME COMMAND...: runs the command, shows its output only when it fails.
check() {
    name=$1
    shift
    # No part of a condition: within one, `set -e` would let a function go on after a step that failed.
    set +e
    (set -e; trap stop EXIT; "$@") >"$work/log" 2>&1
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        passed "$name"
    else
        failures=$((failures + 1))
        echo "FAILED   $name"
        sed 's/^/         /' "$work/log"
    fi
}

scripts() {
    for script in build.sh install.sh certificates.sh check.sh; do
        sh -n "$here/$script"
    done
    python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$here/health_probe.py"
}

# Every path that the Containerfile copies from the source tree and every user-visible command must exist.
containerfile() {
    sed -n 's/^COPY deploy/deploy/p' "$here/Containerfile" | while read -r source _destination; do
        [ -e "$here/../$source" ] || { echo "the Containerfile copies $source, which is not there"; exit 1; }
    done || return 1
    grep -q '^    deploy/build.sh ' "$here/Containerfile" || { echo 'the Containerfile does not run build.sh'; return 1; }
    grep -q '^USER shardproof$' "$here/Containerfile" || { echo 'the image would run as root'; return 1; }
}

units() {
    "$here/install.sh" "$work/programs" "$work/root"
    # The targets that the units name come from the machine; the programs from the tree just installed.
    mkdir -p "$work/root/usr/lib/systemd"
    cp -r "$(systemd-path systemd-system-unit)" "$work/root/usr/lib/systemd/"
    systemd-analyze verify --man=no --recursive-errors=no --root="$work/root" \
        shardproof-coordinator.service shardproof-worker@first.service >"$work/verify" 2>&1 || { cat "$work/verify"; return 1; }
    # A directive that systemd does not know is only a warning to it.
    if grep -i shardproof "$work/verify"; then return 1; fi
}

sysusers() {
    systemd-sysusers --root="$work/root" --dry-run "$work/root/etc/sysusers.d/shardproof.conf"
}

await() { # await FILE PATTERN: the line within 30 s
    tries=0
    until grep -q "$2" "$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -le 300 ] || { echo "no \`$2\` in $1"; cat "$1"; return 1; }
        sleep 0.1
    done
}

# await_health PORT SERVICE: serving within 30 s
await_health() {
    tries=0
    until python3 "$here/health_probe.py" --port "$1" --service "$2" >"$work/probe" 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -le 150 ] || { cat "$work/probe"; return 1; }
        sleep 0.2
    done
}

# Starts what was built the way the units do, asks for health, and stops it with SIGTERM.
services() {
    "$work/programs/coordinator" --backend float --log-format json --data-dir "$work/data/coordinator" -- \
        127.0.0.1 0 1 mlp >"$work/coordinator.out" 2>"$work/coordinator.log" &
    coordinator=$!
    started=$coordinator
    await "$work/coordinator.out" '^listening on ' || return 1
    port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/coordinator.out")
    "$work/programs/worker" --log-format json --data-dir "$work/data/worker" -- \
        127.0.0.1 0 127.0.0.1 "$port" SOLO >"$work/worker.out" 2>"$work/worker.log" &
    worker=$!
    started="$coordinator $worker"
    await "$work/worker.out" '^listening on ' || return 1
    worker_port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/worker.out")
    await_health "$port" '' && await_health "$port" shardproof.v1.Runs || return 1
    await_health "$worker_port" '' && await_health "$worker_port" shardproof.v1.Activations || return 1
    "$work/programs/shardproof" --json status --coordinator "127.0.0.1:$port" >"$work/status" || return 1
    grep -q '"ready": *true' "$work/status" || { cat "$work/status"; return 1; }
    if python3 "$here/health_probe.py" --port "$port" --service no.such.Service; then
        echo 'the probe takes an unknown service for a healthy one'
        return 1
    fi
    for process in $worker $coordinator; do
        kill -TERM "$process"
        wait "$process" || { echo "process $process ended with $? on SIGTERM"; tail -5 "$work"/*.log; return 1; }
    done
    started=''
    ! python3 "$here/health_probe.py" --port "$port" || { echo 'the probe takes a dead service for a healthy one'; return 1; }
}

# The same with the certificates that compose.yaml mounts, which are for other hosts than the workers' here.
services_with_tls() {
    SHARDPROOF=$work/programs/shardproof "$here/certificates.sh" "$work/certificates"
    "$work/programs/shardproof" cert issue "$work/certificates/authority" --role worker --host 127.0.0.1 \
        --out "$work/certificates/worker"
    "$work/programs/coordinator" --backend float --tls "$work/certificates/coordinator" --data-dir "$work/data/tls" -- \
        127.0.0.1 0 1 mlp >"$work/tls.out" 2>"$work/tls.log" &
    coordinator=$!
    started=$coordinator
    await "$work/tls.out" '^listening on ' || return 1
    port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/tls.out")
    "$work/programs/worker" --tls "$work/certificates/worker" --data-dir "$work/data/tls-worker" -- \
        127.0.0.1 0 127.0.0.1 "$port" SOLO >"$work/tls-worker.out" 2>"$work/tls-worker.log" &
    started="$coordinator $!"
    await "$work/tls-worker.out" '^listening on ' || return 1
    worker_port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/tls-worker.out")
    SHARDPROOF_TLS=$work/certificates/client
    export SHARDPROOF_TLS
    await_health "$port" shardproof.v1.Runs && await_health "$worker_port" shardproof.v1.Activations || return 1
    "$work/programs/shardproof" status --coordinator "127.0.0.1:$port" >"$work/status" || return 1
    unset SHARDPROOF_TLS
    if python3 "$here/health_probe.py" --port "$port"; then
        echo 'a probe in the clear takes a service with TLS for a healthy one'
        return 1
    fi
    stop
}

compose() {
    python3 "$here/check_compose.py" "$here/compose.yaml" "$work/programs"
}

check 'scripts parse' scripts
if command -v shellcheck >/dev/null; then
    check 'shellcheck' shellcheck "$here/build.sh" "$here/install.sh" "$here/certificates.sh" "$here/check.sh"
else
    skip 'shellcheck' 'not installed'
fi
check 'Containerfile' containerfile
check 'build.sh' "$here/build.sh" "$work/programs"
if [ "$failures" -gt 0 ]; then
    echo 'the rest needs a build'
    exit 1
fi
if command -v systemd-analyze >/dev/null; then
    check 'install.sh, units' units
else
    check 'install.sh' "$here/install.sh" "$work/programs" "$work/root"
    skip 'units' 'systemd-analyze is not installed'
fi
if command -v systemd-sysusers >/dev/null; then
    check 'service user' sysusers
else
    skip 'service user' 'systemd-sysusers is not installed'
fi
if python3 -c 'import yaml' 2>/dev/null; then
    check 'compose.yaml' compose
else
    skip 'compose.yaml' "Python's yaml is not installed"
fi
check 'services start, are healthy, stop' services
check 'the same with TLS' services_with_tls

echo "$failures failed, $skipped skipped"
[ "$failures" -eq 0 ]
