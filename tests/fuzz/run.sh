#!/usr/bin/env bash
# Builds a fuzz target with coverage counters and lets libFuzzer look for an input that breaks it.
#
#   tests/fuzz/run.sh TARGET [ARGUMENTS OF LIBFUZZER]
#   tests/fuzz/run.sh replication_message -max_total_time=3600       the full form: an hour
#
# Needs no nightly Rust. Inputs that reached something new are kept in target/fuzz/corpus/TARGET, or below
# WALARCH_FUZZ_CORPUS, and are where the next run begins; one that breaks the target is left in target/fuzz
# and named.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "tests/fuzz/run.sh: $*" >&2; exit 2; }

[ $# -gt 0 ] || fail "which target? $(sed -n 's/^name = "\(.*[^z]\)"$/\1/p' tests/fuzz/Cargo.toml | xargs)"
target=$1
shift
host=$(rustc -vV | sed -n 's/^host: //p')
# The instrumentation that libFuzzer is guided by: an 8-bit counter for each edge, and every comparison.
flags=(-Cpasses=sancov-module -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks)
for pass in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$pass")
done

# With a target named, the flags are not those of build scripts.
RUSTFLAGS="${flags[*]}" cargo build --quiet --locked --manifest-path tests/fuzz/Cargo.toml \
    --target-dir target/fuzz --target "$host" --bin "$target"
corpus=${WALARCH_FUZZ_CORPUS:-target/fuzz/corpus}/$target
mkdir -p "$corpus"
exec "target/fuzz/$host/debug/$target" -artifact_prefix=target/fuzz/ "$@" "$corpus"
