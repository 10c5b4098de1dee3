# Builds and checks, and leaves nothing behind that others could take for an image.
# shellcheck disable=SC2086 # options, split at blanks
hpc3build build "$@" ${HPC3_BUILD_OPTIONS:-} -t "oci:$hpc3_private/image:try" --json >"$hpc3_out/facts.json"
hpc3build check "oci:$hpc3_private/image:try" --junit "$hpc3_out/junit.xml"
