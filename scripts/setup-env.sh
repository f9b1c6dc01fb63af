#!/usr/bin/env bash
# Makes .venv with everything this checkout needs, or does nothing when it is up to date. Source it from the
# repository root; afterwards the environment is active.
# XVLA_EXTRAS chooses the extras (default: dev; "core" for none).

set -euo pipefail

setup_environment() {
    local extras="${XVLA_EXTRAS:-dev}" python stamp wanted
    python="${PYTHON:-python3.11}"
    stamp=".venv/.installed-${extras}"
    wanted="$(sha256sum pyproject.toml | cut -d' ' -f1) ${PWD}"

    if [ ! -x .venv/bin/python ]; then
        command -v "$python" >/dev/null || { echo "error: Python 3.11 is needed ($python not found)" >&2; exit 2; }
        echo "-- creating .venv with $("$python" --version)"
        "$python" -m venv .venv
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate

    if [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then
        return
    fi
    local pip=(python -m pip --disable-pip-version-check --quiet --no-input install)
    # First and by its exact version, so that no dependency gets to choose another build of it.
    echo "-- installing torch (1 of 2)"
    "${pip[@]}" "torch==2.13.0"
    echo "-- installing xvla-platform (${extras}) and its dependencies (2 of 2)"
    if [ "$extras" = core ]; then "${pip[@]}" -e .; else "${pip[@]}" -e ".[${extras}]"; fi
    echo "$wanted" >"$stamp"
    echo "-- environment ready: .venv"
}

setup_environment
