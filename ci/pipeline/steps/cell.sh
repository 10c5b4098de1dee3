# What makes this image: its options, and the folder for what is told of it.
set -- "$HPC3_RECIPE"
hpc3_cell=
[ -z "${HPC3_TARGET:-}" ] || { set -- "$@" --target "$HPC3_TARGET"; hpc3_cell="$hpc3_cell-$HPC3_TARGET"; }
[ -z "${HPC3_BASE:-}" ] || { set -- "$@" --base "$HPC3_BASE"; hpc3_cell="$hpc3_cell-$HPC3_BASE"; }
[ -z "${HPC3_MPI:-}" ] || { set -- "$@" --mpi "$HPC3_MPI"; hpc3_cell="$hpc3_cell-$HPC3_MPI"; }
[ -z "${HPC3_CUDA:-}" ] || { set -- "$@" --cuda-compute-capabilities "$HPC3_CUDA"; hpc3_cell="$hpc3_cell-$HPC3_CUDA"; }
hpc3_cell=$(printf '%s' "${hpc3_cell#-}" | tr -c 'A-Za-z0-9._-' '-')
hpc3_out=${HPC3_OUT:-out}/$HPC3_NAME/${hpc3_cell:-default}
mkdir -p "$hpc3_out"
# One commit, one time: a job that runs again makes the same image.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=
    if [ -z "$SOURCE_DATE_EPOCH" ] && [ -n "${CI_COMMIT_TIMESTAMP:-}" ]; then
        SOURCE_DATE_EPOCH=$(date -d "$CI_COMMIT_TIMESTAMP" +%s)
    fi
    export SOURCE_DATE_EPOCH
fi
