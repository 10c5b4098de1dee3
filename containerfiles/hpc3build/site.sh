# Sourced by the build's RUN steps that download: proxies, CA and apt settings of the site, where it gave any.
# They come as build secrets, so no layer and no label ever holds them.
if [ -r /run/secrets/hpc3build_env ]; then
    . /run/secrets/hpc3build_env
fi
if [ -r /run/secrets/hpc3build_ca ]; then
    export SSL_CERT_FILE=/run/secrets/hpc3build_ca CURL_CA_BUNDLE=/run/secrets/hpc3build_ca
    export PIP_CERT=/run/secrets/hpc3build_ca REQUESTS_CA_BUNDLE=/run/secrets/hpc3build_ca
    export GIT_SSL_CAINFO=/run/secrets/hpc3build_ca
fi
if [ -r /run/secrets/hpc3build_apt ]; then
    export APT_CONFIG=/run/secrets/hpc3build_apt
fi
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
