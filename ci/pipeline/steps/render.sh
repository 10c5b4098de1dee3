hpc3build render "$@" -o "$hpc3_out/Containerfile"
