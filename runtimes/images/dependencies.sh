#!/bin/sh
# Build stage, first half: an environment in /opt/build that can build Roost, and one in /opt/roost with what an image
# needs at run time, both from locks. Wheels only: nothing is compiled, so no compiler is needed anywhere.
set -eu
export PYTHONDONTWRITEBYTECODE=1
install="install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes --no-deps --only-binary=:all:"
python3 -m venv /opt/build
/opt/build/bin/pip $install --requirement build.lock
python3 -m venv --without-pip /opt/roost
/opt/build/bin/pip --python /opt/roost/bin/python $install --no-compile --requirement requirements.lock
