# Sourced by capture.py: the environment as `spack env activate` sets it.
export PYTHONDONTWRITEBYTECODE=1
eval "$(/opt/spack/bin/spack env activate --sh -d /opt/spack-environment)"
unset PYTHONDONTWRITEBYTECODE
# Compilers and wrappers of externals: the final stage has not the builder's packages.
for name in CC CXX FC F77 F90 MPICC MPICXX MPIF77 MPIF90 MPIFC; do
    case "${!name-}" in
        /usr/*) unset "$name" ;;
    esac
done
unset name
