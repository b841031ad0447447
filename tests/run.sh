#!/usr/bin/env bash
# The one test command: installs what is missing, builds, runs every test.
#
#   tests/run.sh                  everything, the fault sweeps bounded
#   tests/run.sh --full-sweep     every call of every fault sweep; a receiver is killed 120 times under load
#   tests/run.sh ARGUMENTS        are passed to cargo test, e.g. --test suite archive::
#
# The debug profile on purpose: its overflow checks and debug assertions are part of the test, and the
# dependencies, where the time goes, are optimised in it as well.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
for argument in "$@"; do
    case "$argument" in
        --full-sweep) export WALARCH_FULL_SWEEP=1 ;;
        *) arguments+=("$argument") ;;
    esac
done

tests/setup.sh
exec cargo test --locked "${arguments[@]}"
