#!/usr/bin/env bash
# The whole job on a fresh machine: installs, registers the example robot, adapts the shipped base to it in two
# stages, measures it, shares it and brings it back. No GPU, and no network but package installs.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
XVLA_EXTRAS="${XVLA_EXTRAS:-core}" source scripts/setup-env.sh

step() { printf '\n== %s\n' "$*"; }

step "xvla add-embodiment plugins/my_arm"
xvla add-embodiment plugins/my_arm

step "xvla adapt --embodiment my_arm"
xvla adapt --embodiment my_arm

step "xvla push my_arm --to dir:runs/share"
mkdir -p runs/share
xvla push my_arm --to dir:runs/share

# A second, empty workspace stands for a colleague's machine.
version="$(ls -v registry/my_arm | grep -E '^v[0-9]+$' | tail -n 1)"
away="$(mktemp -d)"
trap 'rm -rf "$away"' EXIT
colleague="$away/workspace"
step "xvla pull, into an empty workspace"
xvla init "$colleague" >/dev/null
xvla pull "dir:$PWD/runs/share/my_arm/$version" --workspace "$colleague"
diff -r "registry/my_arm/$version" "$colleague"/registry/my_arm/v*/ && echo "pulled back byte for byte"

step "xvla eval my_arm, in that workspace"
xvla eval my_arm --workspace "$colleague"

echo
echo "picture: $PWD/registry/my_arm/$version/trajectories.png"
