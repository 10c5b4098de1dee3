set -eu +x
# The registry's password goes from its masked variable into a file that only this job reads. The project's own
# registry takes the job's token; no other host is given it.
hpc3_private=$(mktemp -d)
trap 'rm -rf -- "$hpc3_private"' EXIT
hpc3_user=${HPC3_REGISTRY_USER:-} hpc3_word=${HPC3_REGISTRY_PASSWORD:-}
if [ -z "$hpc3_word" ] && [ "${HPC3_IMAGE%%/*}" = "${CI_REGISTRY:-}" ]; then
    hpc3_user=${CI_REGISTRY_USER:-} hpc3_word=${CI_REGISTRY_PASSWORD:-}
fi
if [ -n "$hpc3_word" ]; then
    hpc3_word=$(printf '%s:%s' "$hpc3_user" "$hpc3_word" | base64 | tr -d '\n')
    printf '{"auths": {"%s": {"auth": "%s"}}}\n' "${HPC3_IMAGE%%/*}" "$hpc3_word" >"$hpc3_private/auth.json"
    export REGISTRY_AUTH_FILE="$hpc3_private/auth.json"
fi
unset hpc3_word HPC3_REGISTRY_PASSWORD
