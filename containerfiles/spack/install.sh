# Installs the environment: install.sh lock|concretize [depfile] [runpath].
# Mirrors and keys come as build secrets; nothing of them stays. What was installed goes, signed, into a binary cache
# on the cache mount, also where a later package failed: the next build goes on from there.
set -euo pipefail
export PATH=/opt/spack/bin:$PATH PYTHONDONTWRITEBYTECODE=1
environment=${HPC3BUILD_ENVIRONMENT:-/opt/spack-environment}
store=${HPC3BUILD_STORE:-/opt/software}
view=${HPC3BUILD_VIEW:-/opt/views/view}
rootfs=${HPC3BUILD_ROOTFS:-/opt/hpc3build/rootfs}
secrets=${HPC3BUILD_SECRETS:-/run/secrets}
cache=${HPC3BUILD_CACHE:-/var/cache/hpc3build/spack}
mode=$1 depfile='' runpath=''
shift
for word in "$@"; do
    case $word in
        depfile) depfile=yes ;;
        runpath) runpath=yes ;;
    esac
done

own=$(mktemp -d "${TMPDIR:-/tmp}/hpc3build-spack.XXXXXX")
# Isolation by chroot leaves daemons running: gpg's agent goes before its folder does.
trap 'gpgconf --homedir "$own/gpg" --kill all >/dev/null 2>&1 || true; rm -rf "$own"' EXIT
export SPACK_GNUPGHOME=$own/gpg
install -d -m 700 "$SPACK_GNUPGHOME"
install -d "$own/scope"
if [ -r "$secrets/hpc3build_mirrors" ]; then
    ln -s "$secrets/hpc3build_mirrors" "$own/scope/mirrors.yaml"
fi
spack() { command spack -C "$own/scope" "$@"; }

# Packages of mirrors count only with a signature by one of these keys, or by the binary cache's own.
if [ -r "$secrets/hpc3build_keys" ]; then
    spack gpg trust "$secrets/hpc3build_keys"
fi
caching=''
if [ -d "$cache/binaries" ] || [ -n "${HPC3BUILD_CACHE_MOUNTED:-}" ] || grep -q " $cache " /proc/self/mounts; then
    caching=$(command -v gpg2 || command -v gpg || true)
fi
if [ -f /etc/spack/mirrors.yaml ] && [ -n "$caching" ]; then
    install -d "$cache/binaries"
    if [ -s "$cache/key" ]; then
        spack gpg trust "$cache/key"
    else
        spack gpg create hpc3build binary-cache@localhost
        (umask 077 && spack gpg export --secret "$cache/key.$$" && mv "$cache/key.$$" "$cache/key")
    fi
else
    caching=''
fi
keep() {
    if [ -n "$caching" ]; then
        spack -e "$environment" buildcache push hpc3build-cache ||
            echo 'not everything went into the binary cache' >&2
    fi
}

spack compiler find --scope site
if [ "$mode" = concretize ]; then
    spack -e "$environment" concretize --fresh
fi
failed=0
if [ -n "$depfile" ]; then
    spack -e "$environment" env depfile -o "$own/Makefile"
    make -j"$(nproc)" -f "$own/Makefile" SPACK="spack -C $own/scope" || failed=$?
fi
if [ "$failed" = 0 ]; then
    spack -e "$environment" install --fail-fast || failed=$?
fi
keep
if [ "$failed" != 0 ]; then
    exit "$failed"
fi
spack -e "$environment" gc -y
# Logs hold the builder's environment, and nothing in an image needs set-user-ID (Spack's sbang has it).
find "$store" -path '*/.spack/spack-build-*' -type f -exec rm -f {} +
if [ -d "${view%/*}" ]; then
    # The view has links to them, or copies.
    find "${view%/*}/" -path '*/.spack/*' -name 'spack-build-*' ! -type d -exec rm -f {} +
fi
find "$store" -type f -perm /6000 -exec chmod a-s {} +

install -d "$rootfs/opt"
ln -s views/view "$rootfs/opt/view"
# Where images of spack containerize have it.
ln -sf /etc/profile.d/z10_hpc3build.sh "$environment/activate.sh"
if [ -n "$runpath" ]; then
    # An MPI of the host takes the place of this one by way of the loader's cache or path.
    install -d "$rootfs/etc/ld.so.conf.d"
    for library in "$view"/lib/libmpi*.so "$view"/lib64/libmpi*.so; do
        if [ -e "$library" ]; then
            dirname "$(readlink -f "$library")"
        fi
    done | sort -u >"$rootfs/etc/ld.so.conf.d/hpc3build-mpi.conf"
fi
