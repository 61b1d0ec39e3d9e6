#!/usr/bin/env bash
# Prepares a machine to run, test or check the project. Does only what is still missing.
#
#   scripts/setup.sh venv           .venv with what the build needs
#   scripts/setup.sh dev            .venv with the test and lint tools
#   scripts/setup.sh package        the package, compiled, into .venv
#   scripts/setup.sh demo-programs  Debian packages that the demo uses
#   scripts/setup.sh test-programs  Debian packages of the real servers and clients that tests use
#
# Installs Debian packages only as root and only where apt-get exists; says what to install elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

# What must be there (a command, or a file pattern), and the Debian package that brings it.
BUILD_PROGRAMS=(cc:gcc /usr/include/stdio.h:libc6-dev)
DEMO_PROGRAMS=(ip:iproute2 sysctl:procps nginx:nginx-light)
TEST_PROGRAMS=(
    "${DEMO_PROGRAMS[@]}"
    redis-server:redis-server redis-benchmark:redis-tools memcached:memcached
    mariadbd:mariadb-server mariadb:mariadb-client
    "/usr/lib/postgresql/*/bin/postgres:postgresql" "/usr/lib/postgresql/*/bin/pgbench:postgresql-contrib"
    dnsmasq:dnsmasq-base dig:bind9-dnsutils dnsperf:dnsperf
    wrk:wrk nft:nftables iptables:iptables ethtool:ethtool curl:curl nghttp:nghttp2-client tcpdump:tcpdump
    editcap:wireshark-common tshark:tshark
)

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_RETRIES=5 PIP_ROOT_USER_ACTION=ignore
# Servers live in sbin, which is not on every user's path.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# present WHAT: whether a command, or any file that a pattern names, is there
present() {
    case $1 in
        /*) compgen -G "$1" >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# missing_packages WHAT:PACKAGE...: the packages that bring what is not there
missing_packages() {
    local pair
    for pair in "$@"; do
        present "${pair%:*}" || printf '%s\n' "${pair##*:}"
    done
}

# without_service_starts COMMAND...: run it while package scripts may not start services
without_service_starts() {
    local policy=/usr/sbin/policy-rc.d made='' status=0
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=1
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    "$@" || status=$?
    if [ -n "$made" ]; then
        rm -f $policy
        trap - EXIT
    fi
    return $status
}

# apt_install PACKAGE...: install them, renewing the package lists only when that is needed
apt_install() {
    command -v apt-get >/dev/null ||
        fail "missing: $*; there is no apt-get here: install them by other means, then try again"
    [ "$(id -u)" = 0 ] ||
        fail "missing: $*; run as root: apt-get install --no-install-recommends $*"
    say "installing Debian packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    local try log
    log=$(mktemp)
    for try in 1 2 3; do
        if without_service_starts apt-get install -qq -y --no-install-recommends \
            -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" </dev/null >"$log" 2>&1; then
            rm -f "$log"
            return
        fi
        say "apt-get install did not succeed (try $try of 3); renewing the package lists"
        sleep $((2 * try - 2))
        apt-get update -qq -o Acquire::Retries=3 </dev/null >&2 || true
    done
    cat "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: $*"
}

install_programs() {
    local packages
    mapfile -t packages < <(missing_packages "$@")
    [ ${#packages[@]} = 0 ] || apt_install "${packages[@]}"
}

# usable_python PYTHON: 3.11 or newer, makes virtual environments, has the headers
usable_python() {
    "$1" - <<'PYTHON' >/dev/null 2>&1
import ensurepip, os, sys, sysconfig, venv
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(headers)))
PYTHON
}

# find_python: prints the interpreter to build .venv with; installs Debian's where none will do
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 /usr/bin/python3; do
        if usable_python "$candidate"; then
            command -v "$candidate"
            return
        fi
        [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON: needs to be 3.11 or newer, with venv and headers"
    done
    apt_install python3 python3-venv python3-dev
    usable_python /usr/bin/python3 ||
        fail "python3 is $(/usr/bin/python3 --version 2>&1); tcpcopy needs Python 3.11 or newer"
    printf '/usr/bin/python3\n'
}

make_venv() {
    install_programs "${BUILD_PROGRAMS[@]}"
    if ! .venv/bin/python -c 'import pip' 2>/dev/null || ! usable_python .venv/bin/python; then
        local python
        python=$(find_python)
        say "making .venv with $python"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    # The build's own requirements, so that rebuilding needs no network.
    build_requirements >.venv/build-requirements.txt
    .venv/bin/python -m pip install -q -r .venv/build-requirements.txt
}

build_requirements() {
    .venv/bin/python - <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
PYTHON
}

dev_requirements() {
    .venv/bin/python - <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
print(*project["dependencies"], *project["optional-dependencies"]["dev"], sep="\n")
PYTHON
}

install_dev_tools() {
    dev_requirements >.venv/dev-requirements.txt
    .venv/bin/python -m pip install -q -r .venv/dev-requirements.txt
}

# Not an editable install: compiled modules inside src/ would hide the sources from the pure tests.
install_package() {
    say "compiling and installing tcpcopy"
    local log=.venv/build.log
    if ! TCPCOPY_COMPILE=require .venv/bin/python -m pip install -v --no-build-isolation . >$log 2>&1; then
        cat $log >&2
        fail "the package does not build; the text above says why"
    fi
    grep -h 'warning:.*\[-W' $log >&2 || true
    say "$(cd / && "$OLDPWD/.venv/bin/python" -c 'from tcpcopy.version import version_line; print(version_line())')"
}

case ${1:-} in
    venv) make_venv ;;
    dev) install_dev_tools ;;
    package) install_package ;;
    demo-programs)
        # The demo has a web server of its own where nginx cannot be had.
        (install_programs "${DEMO_PROGRAMS[@]}") || say "going on without; the demo brings its own web server"
        ;;
    test-programs) install_programs "${TEST_PROGRAMS[@]}" ;;
    *) fail "usage: scripts/setup.sh venv|dev|package|demo-programs|test-programs" ;;
esac
