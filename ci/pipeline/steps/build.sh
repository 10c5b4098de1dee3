# The image runs here as nobody before its labels and annotations are written, and is pushed without a tag.
rm -f "$hpc3_out/digest"
# shellcheck disable=SC2086 # options, split at blanks
hpc3build build "$@" ${HPC3_BUILD_OPTIONS:-} -t "docker://$HPC3_IMAGE/$HPC3_NAME" --push-by-digest \
    --digest-file "$hpc3_out/digest" --json >"$hpc3_out/facts.json"
