#!/bin/sh
# Builds the programs that a machine needs and puts them into a directory.
#
#   deploy/build.sh [DESTINATION]      default: dist/ in the target directory
#
# Needs the Rust toolchain and a C compiler. The Containerfile runs this very script, so a build that passes here passes
# there. CARGO_TARGET_DIR is honoured.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
destination=${1:-$target/dist}
programs='coordinator worker shardproof'

command -v cargo >/dev/null || { echo 'build.sh: cargo is not there; install the Rust toolchain' >&2; exit 1; }
command -v cc >/dev/null || { echo 'build.sh: cc is not there; install a C compiler' >&2; exit 1; }

# What is built here may run elsewhere: on any x86 processor since about 2015 (AVX2), or on any of another architecture.
# Set RUSTFLAGS='-C target-cpu=native' for this machine alone.
case $(uname -m) in
    x86_64) default_flags='-C target-cpu=x86-64-v3' ;;
    *) default_flags= ;;
esac
RUSTFLAGS=${RUSTFLAGS-$default_flags}
export RUSTFLAGS

# --locked: what is deployed is what was tested.
cargo build --manifest-path "$root/Cargo.toml" --release --locked --workspace \
    --bin coordinator --bin worker --bin shardproof

mkdir -p "$destination"
for program in $programs; do
    install -m 0755 "$target/release/$program" "$destination/$program"
    # A program that does not start here would not start there.
    "$destination/$program" --version
done
