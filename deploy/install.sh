#!/bin/sh
# Installs built programs, systemd units and example settings.
#
#   deploy/install.sh PROGRAMS [ROOT]      PROGRAMS: directory that build.sh filled; ROOT: default /
#
# Settings that are already there stay as they are.
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo 'usage: install.sh PROGRAMS [ROOT]' >&2
    exit 2
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
programs=$1
root=${2:-}

for program in coordinator worker shardproof; do
    [ -x "$programs/$program" ] || { echo "install.sh: $programs/$program is not there; run build.sh first" >&2; exit 1; }
done

install -d "$root/usr/local/bin" "$root/etc/systemd/system" "$root/etc/sysusers.d" "$root/etc/shardproof"
for program in coordinator worker shardproof; do
    install -m 0755 "$programs/$program" "$root/usr/local/bin/$program"
done
install -m 0644 "$here/systemd/shardproof-coordinator.service" "$here/systemd/shardproof-worker@.service" \
    "$root/etc/systemd/system/"
install -m 0644 "$here/systemd/shardproof.sysusers.conf" "$root/etc/sysusers.d/shardproof.conf"
# Read by systemd as root; a database's password or an object store's key may be in them.
for settings in coordinator.env worker-first.env; do
    [ -e "$root/etc/shardproof/$settings" ] || install -m 0600 "$here/systemd/$settings" "$root/etc/shardproof/$settings"
done
# A unit whose settings are only an example must be enabled by hand.
echo "installed under ${root:-/}; next: edit ${root}/etc/shardproof/*.env, then see deploy/README.md"
