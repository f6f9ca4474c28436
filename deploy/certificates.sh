#!/bin/sh
# Makes an authority and the certificates that compose.yaml mounts, with the `shardproof` on the search path or in SHARDPROOF.
#
#   deploy/certificates.sh DIR
#
# DIR/authority has the key that everything hangs on: move it off the machine once all certificates are issued.
set -eu

if [ $# -ne 1 ]; then
    echo 'usage: certificates.sh DIR' >&2
    exit 2
fi
directory=$1
shardproof=${SHARDPROOF:-shardproof}
authority=$directory/authority

"$shardproof" cert init "$authority"
"$shardproof" cert issue "$authority" --role coordinator --host coordinator --host localhost --host 127.0.0.1 \
    --out "$directory/coordinator"
for worker in worker-first worker-second worker-third worker-last; do
    "$shardproof" cert issue "$authority" --role worker --host "$worker" --out "$directory/$worker"
done
"$shardproof" cert issue "$authority" --role client --out "$directory/client"
"$shardproof" cert issue "$authority" --role admin --out "$directory/admin"
