# Every image of the recipe by its digest; the tag comes last, and again gives the same bytes.
set --
for hpc3_digest in "${HPC3_OUT:-out}/$HPC3_NAME"/*/digest; do
    set -- "$@" "docker://$HPC3_IMAGE/$HPC3_NAME@$(cat "$hpc3_digest")"
done
# shellcheck disable=SC2086 # options, split at blanks
hpc3build index create ${HPC3_INDEX_OPTIONS:-} "docker://$HPC3_IMAGE/$HPC3_NAME:$HPC3_TAG" "$@" \
    --digest-file "${HPC3_OUT:-out}/$HPC3_NAME/index"
