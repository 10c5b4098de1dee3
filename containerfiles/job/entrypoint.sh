#!/bin/bash
# Sets the engines up for the machine that this container is on, then runs the command.
set -eu
library=$(/opt/hpc3build/bin/python -c 'from hpc3build.resources import folder; print(folder("ci"))')/lib.sh
# shellcheck source=/dev/null
source "$library"
engine_env
set +e +u
exec "$@"
