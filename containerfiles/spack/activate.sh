# Sourced by capture.py: the environment as `spack env activate` sets it.
eval "$(/opt/spack/bin/spack env activate --sh -d /opt/spack-environment)"
