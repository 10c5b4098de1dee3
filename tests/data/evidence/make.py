# ruff: noqa: E501, SIM905 (commands and tables of files are read better in one line)
"""Makes blobs.tar.xz and images.json beside this file: small images of real programs, for tests/unit/test_evidence_images.py.

    python3 make.py WORK        # on Debian 12, x86_64; WORK is an empty folder of 3 GB; needs gcc, pyelftools and pip

Packages are downloaded (apt-get download, pip) and unpacked below WORK; nothing is installed. Of libraries only what a
dynamic linker reads is kept, and the texts that tests look for: all other sections become zeros, which pack to nothing.
What the images say is in expected.json, worked out by hand from the commands below, never from hpc3build's output.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

HERE = Path(__file__).parent
DEBS = """clang-14 clang-tools-14 libclang-common-14-dev lld-14 libllvm14 libclang-cpp14 llvm-14 musl-dev musl-tools musl libmpich-dev
libmpich12 mpich libopenmpi3 libopenmpi-dev openmpi-bin libucx0 libfabric1 libhwloc15 libpmix2 libc6 libc6-dev""".split()
WHEELS = "nvidia-cuda-nvcc nvidia-cuda-crt nvidia-cuda-runtime nvidia-nvvm".split()
LIB = "/usr/lib/x86_64-linux-gnu"
KEEP = {".interp", ".dynstr", ".dynamic", ".gnu.version_r", ".gnu.version_d", ".shstrtab", ".nv_fatbin", "__nv_relfatbin",
        ".hip_fatbin"}  # fmt: skip
TEXTS = re.compile(rb"\0?[^\0]*(?:GNU C Library|Open MPI v|MPICH Version|MPIR_CVAR_ABORT_ON_LEAKED|MPID_Init)[^\0]*\0")

HELLO = """#include <mpi.h>
int main(int c, char **v) { MPI_Init(&c, &v); MPI_Barrier(MPI_COMM_WORLD); return MPI_Finalize(); }"""
PLAIN = '#include <stdio.h>\nint main(void) { return puts("plain") < 0; }'
SAXPY = """__global__ void saxpy(int n, float a, const float *x, float *y)
{ int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] = a * x[i] + y[i]; }
extern "C" int run(float *x, float *y) { saxpy<<<4, 256>>>(1024, 2.f, x, y); return (int)cudaDeviceSynchronize(); }"""
MAIN = "\nint main() { float *x, *y; cudaMalloc(&x, 4096); cudaMalloc(&y, 4096); return run(x, y); }"
KERNEL = "__kernel void k(__global float *x) { x[__builtin_amdgcn_workitem_id_x()] = 1; }"

STORE = "/opt/software/linux-debian12-zen3/gcc-12.2.0"
SPACK_MPI = f"{STORE}/openmpi-4.1.5-{'b' * 32}"

work = Path(sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)).resolve()
root = work / "root"
blobs: dict[str, bytes] = {}
images: dict[str, object] = {}


def sh(*words: object, **more: object) -> None:
    subprocess.run([str(word) for word in words], check=True, cwd=work, **more)  # type: ignore[call-overload]


def fetch() -> None:
    (work / "debs").mkdir(parents=True, exist_ok=True)
    if not root.exists():
        subprocess.run(["apt-get", "download", "-q", *DEBS], check=True, cwd=work / "debs")
        for deb in sorted((work / "debs").glob("*.deb")):
            sh("dpkg", "-x", deb, root)
    if not (work / "cuda").exists():
        sh(sys.executable, "-m", "pip", "install", "-q", "--target", work / "cuda", *WHEELS)


def husk(data: bytes, whole: bool = False) -> bytes:
    """An ELF file of which only what tells something is left."""
    if whole:
        return data
    kept = bytearray(data)
    for section in ELFFile(io.BytesIO(data)).iter_sections():
        start, end = section["sh_offset"], section["sh_offset"] + section["sh_size"]
        if section["sh_type"] in ("SHT_NOBITS", "SHT_NOTE", "SHT_NULL") or section.name in KEEP:
            continue
        texts = [match.span() for match in TEXTS.finditer(data, start, end)]
        kept[start:end] = bytes(end - start)
        for first, last in texts:
            kept[first:last] = data[first:last]
    return bytes(kept)


def blob(data: bytes) -> dict[str, str]:
    name = hashlib.sha256(data).hexdigest()[:16]
    blobs[name] = data
    return {"blob": name}


def program(name: str) -> dict[str, str]:
    return blob(husk((work / name).read_bytes()))


def tree(*paths: str) -> dict[str, object]:
    """Files of the packages, with the links that lead to them."""
    found: dict[str, object] = {}
    for path in paths:
        full = root / path.lstrip("/")
        while full.is_symlink():
            target = str(full.readlink())
            found["/" + str(full.relative_to(root))] = {"link": target}
            full = root / target.lstrip("/") if target.startswith("/") else full.parent / target
            full = Path(*[part for part in full.parts if part != "."])
        found["/" + str(full.resolve().relative_to(root))] = blob(husk(full.read_bytes()))
    return found


def text(content: str) -> dict[str, str]:
    return {"text": content}


def status(*names: str) -> dict[str, object]:
    """dpkg's status of these packages, of their own control files."""
    parts = []
    for name in names:
        deb = next((work / "debs").glob(f"{name}_*.deb"))
        control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
        first, _, rest = control.partition("\n")
        rest = re.sub(r"^Description:.*\n(?: .*\n)*", "", rest, flags=re.MULTILINE)
        parts.append(f"{first}\nStatus: install ok installed\n{rest.strip()}\n")
    return {"/var/lib/dpkg/status": text("\n".join(parts))}


def image(name: str, *layers: dict[str, object], env: dict[str, str] | None = None, **config: object) -> None:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = [f"{key}={value}" for key, value in {"PATH": path, **(env or {})}.items()]
    labels = config.pop("labels", None)
    images[name] = {"config": {"Env": environment, **config}, "labels": labels, "layers": list(layers)}


def programs() -> None:
    for name, source in {
        "hello.c": HELLO,
        "plain.c": PLAIN,
        "saxpy.cu": SAXPY + MAIN,
        "lib.cu": SAXPY,
        "k.cl": KERNEL,
    }.items():
        (work / name).write_text(source)
    (work / "app.c").write_text("int run(float *, float *); int main(void) { return run(0, 0); }")
    ompi = ["-I", root / f"{LIB[1:]}/openmpi/include", "-L", root / f"{LIB[1:]}/openmpi/lib"]
    mpich = ["-I", root / "usr/include/x86_64-linux-gnu/mpich", "-L", root / LIB[1:]]
    shared = ["-Wl,--unresolved-symbols=ignore-in-shared-libs"]
    sh("gcc", "-o", "openmpi", "hello.c", *ompi, root / f"{LIB[1:]}/libmpi.so.40", *shared)
    sh("strip", "-o", "openmpi-stripped", "openmpi")
    for flag, name in (("--disable-new-dtags", "rpath"), ("--enable-new-dtags", "runpath")):
        for folder, where in (("/opt/openmpi/lib", "opt"), ("$ORIGIN/../lib", "origin"), (f"{SPACK_MPI}/lib", "spack")):
            paths = [f"-Wl,{flag}", f"-Wl,-rpath,{folder}"]
            sh(
                "gcc",
                "-o",
                f"openmpi-{name}-{where}",
                "hello.c",
                *ompi,
                root / f"{LIB[1:]}/libmpi.so.40",
                *shared,
                *paths,
            )
    sh("gcc", "-o", "mpich", "hello.c", *mpich, root / f"{LIB[1:]}/libmpich.so.12", *shared)
    needs = [root / f"{LIB[1:]}/{name}" for name in ("libhwloc.so.15", "libucp.so.0", "libucs.so.0")]
    sh(
        "gcc",
        "-o",
        "mpich-static",
        "hello.c",
        *mpich,
        root / f"{LIB[1:]}/libmpich.a",
        *needs,
        *shared,
        "-lm",
        "-lpthread",
    )
    sh("strip", "-o", "mpich-static-stripped", "mpich-static")
    sh("gcc", "-o", "plain", "plain.c")
    sh("gcc", "-static", "-s", "-o", "plain-static", "plain.c")
    specs = (root / "usr/lib/x86_64-linux-musl/musl-gcc.specs").read_text()
    (work / "musl.specs").write_text(
        re.sub(r"/usr/(lib|include)/x86_64-linux-musl", rf"{root}/usr/\1/x86_64-linux-musl", specs)
    )
    sh("ln", "-sfn", root / "lib/x86_64-linux-musl/libc.so", root / "usr/lib/x86_64-linux-musl/libc.so")
    sh("gcc", "-o", "musl", "plain.c", "-specs", "musl.specs", "-s")
    sh("gcc", "-static", "-o", "musl-static", "plain.c", "-specs", "musl.specs", "-s")
    cuda_programs()
    rocm_programs()


def cuda_programs() -> None:
    cuda = next((work / "cuda/nvidia").glob("cu1*"))
    sh("ln", "-sf", "libcudart.so.13", cuda / "lib/libcudart.so")

    def nvcc(name: str, *options: str, source: str = "saxpy.cu") -> None:
        sh(cuda / "bin/nvcc", *options, "-L", cuda / "lib", "-o", name, source)

    def code(*pairs: tuple[str, str]) -> list[str]:
        return [word for arch, target in pairs for word in ("-gencode", f"arch=compute_{arch},code={target}")]

    nvcc("cuda-multi", *code(("80", "sm_80"), ("90", "sm_90"), ("90", "compute_90")))
    nvcc("cuda-sass", *code(("90a", "sm_90a")))
    nvcc("cuda-ptx", "--cudart=shared", *code(("75", "compute_75")))
    nvcc("cuda-compressed", "--compress-mode=size", *code(("80", "sm_80"), ("80", "compute_80")))
    nvcc("cuda-plain", "--no-compress", *code(("80", "sm_80"), ("80", "compute_80")))
    nvcc("cuda-rdc", "-rdc=true", *code(("80", "sm_80")))
    nvcc("cuda-family", *code(("100f", "sm_100f"), ("100f", "compute_100f")))
    nvcc("libkernels.so", "-shared", "-Xcompiler", "-fPIC", "--cudart=shared", *code(("80", "sm_80")), source="lib.cu")
    nvcc("libtorch_cuda.so", "-shared", "-Xcompiler", "-fPIC", "--cudart=shared",
         *code(("80", "sm_80"), ("90", "sm_90"), ("90", "compute_90")), source="lib.cu")  # fmt: skip
    sh(
        "gcc",
        "-o",
        "uses-kernels",
        "app.c",
        "libkernels.so",
        "-Wl,-rpath,$ORIGIN/../lib",
        "-Wl,--unresolved-symbols=ignore-all",
    )


def rocm_programs() -> None:
    """Bundles by clang's own bundler, put into a section of a program as hipcc does."""
    llvm = root / "usr/lib/llvm-14/bin"
    env = {"LD_LIBRARY_PATH": f"{root}{LIB}:{root}/usr/lib/llvm-14/lib", "PATH": f"{llvm}:/usr/bin:/bin"}
    include = next((root / "usr/lib").glob("llvm-14/lib/clang/14*"))
    objects, targets = [], []
    for target in ("gfx90a:sramecc+:xnack-", "gfx1030"):
        name = target.split(":")[0]
        sh(llvm / "clang", "-resource-dir", include.resolve(), "--target=amdgcn-amd-amdhsa", f"-mcpu={target}", "-nogpulib",
           "-x", "cl", "-cl-std=CL2.0", "-Xclang", "-finclude-default-header", "-O1", "-c", "k.cl", "-o", f"{name}.o",
           env=env)  # fmt: skip
        sh(root / "usr/bin/ld.lld-14", "-shared", "-o", f"{name}.hsaco", f"{name}.o", env=env)
        objects.append(f"{name}.hsaco")
        targets.append(f"hipv4-amdgcn-amd-amdhsa--{target}")
    (work / "host.o").write_bytes(b"")
    inputs = ",".join(["host.o", *objects])
    sh(llvm / "clang-offload-bundler", "-type=o", "-bundle-align=4096", f"-inputs={inputs}", "-outputs=bundle.hipfb",
       f"-targets=host-x86_64-unknown-linux--,{','.join(targets)}", env=env)  # fmt: skip
    (work / "fat.s").write_text('.section .hip_fatbin,"a",@progbits\n.p2align 12\n.incbin "bundle.hipfb"\n')
    sh("gcc", "-o", "rocm", "plain.c", "fat.s")


def define() -> None:
    cuda = next((work / "cuda/nvidia").glob("cu1*"))
    release = {"/etc/os-release": {"link": "../usr/lib/os-release"},
               "/usr/lib/os-release": text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n')}  # fmt: skip
    conf = {"/etc/ld.so.conf": text("include /etc/ld.so.conf.d/*.conf\n"),
            "/etc/ld.so.conf.d/x86_64-linux-gnu.conf": text("# Multiarch support\n/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n")}  # fmt: skip
    merged = {f"/{name}": {"link": f"usr/{name}"} for name in ("bin", "sbin", "lib", "lib64")}
    libc = {
        f"{LIB}/{name}": blob(husk((root / f"lib/x86_64-linux-gnu/{name}").read_bytes()))
        for name in ("libc.so.6", "libm.so.6")
    }
    libc[f"{LIB}/ld-linux-x86-64.so.2"] = blob(husk((root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").read_bytes()))
    libc["/usr/lib64/ld-linux-x86-64.so.2"] = {"link": f"{LIB}/ld-linux-x86-64.so.2"}
    debian = {**release, **conf, **merged, **libc, "/usr/bin/ls": program("plain"), **status("libc6")}
    ompi_libs = [f"{LIB}/{name}" for name in ("libmpi.so.40", "libopen-rte.so.40", "libopen-pal.so.40", "libhwloc.so.15", "libpmix.so.2",
                 "libucp.so.0", "libucs.so.0", "libfabric.so.1")]  # fmt: skip
    plugins = [
        f"{LIB}/openmpi/lib/openmpi3/mca_{name}.so" for name in ("pml_ucx", "mtl_ofi", "btl_openib", "pmix_ext3x")
    ]
    packages = ("libc6", "libopenmpi3", "openmpi-bin", "libucx0", "libfabric1", "libhwloc15", "libpmix2")
    openmpi = {**tree(*ompi_libs, *plugins), **status(*packages), "/usr/bin/orterun": blob(husk((root / "usr/bin/orterun").read_bytes())),
               "/usr/bin/mpirun": {"link": "orterun"}}  # fmt: skip
    mpich = {**tree(*(f"{LIB}/{name}" for name in ("libmpich.so.12", "libhwloc.so.15", "libucp.so.0", "libucs.so.0"))),
             **status("libc6", "libmpich12", "mpich", "libucx0", "libhwloc15")}  # fmt: skip

    def at(path: str, name: str) -> dict[str, object]:
        return {path: program(name)}

    hello = at("/usr/local/bin/hello", "openmpi")
    image("debian-openmpi", debian, openmpi, hello)
    image("debian-openmpi-stripped", debian, openmpi, at("/usr/local/bin/hello", "openmpi-stripped"))
    image("debian-openmpi-packaged", debian, openmpi, at("/usr/bin/gmx_mpi", "openmpi"))
    image("debian-mpich", debian, mpich, at("/usr/local/bin/hello", "mpich"))
    image("mpich-static", debian, at("/opt/app/bin/hello", "mpich-static"), Entrypoint=["/opt/app/bin/hello"])
    image(
        "mpich-static-stripped",
        debian,
        at("/opt/app/bin/hello", "mpich-static-stripped"),
        Entrypoint=["/opt/app/bin/hello"],
    )
    image("mpi-unused", debian, openmpi, at("/usr/local/bin/plain", "plain"))
    image("mpi-of-the-host", debian, at("/usr/local/bin/hello", "openmpi"))
    image("two-mpis", debian, openmpi, mpich | {"/var/lib/dpkg/status": status(*packages, "libmpich12")["/var/lib/dpkg/status"]},
          at("/usr/local/bin/one", "openmpi"), at("/usr/local/bin/two", "mpich"))  # fmt: skip
    image(
        "wrong-label",
        debian,
        openmpi,
        hello,
        labels={"org.supercontainers.mpi": "mpich", "org.supercontainers.glibc": "2.36"},
    )
    opt = {path.replace(LIB, "/opt/openmpi/lib"): entry for path, entry in tree(*ompi_libs[:4]).items()}
    profile = {"/etc/profile.d/app.sh": text('export PATH="/opt/app/bin:$PATH"\n')}
    image("rpath", debian, opt, profile, at("/opt/app/bin/hello", "openmpi-rpath-opt"))
    image("runpath", debian, opt, profile, at("/opt/app/bin/hello", "openmpi-runpath-opt"))
    conda = {path.replace(LIB, "/opt/conda/lib"): entry for path, entry in tree(*ompi_libs[:4]).items()}
    record = {"build": "h0_100", "name": "openmpi", "version": "4.1.4", "files": ["lib/libmpi.so.40"]}
    image("conda", debian, conda, at("/opt/conda/bin/hello", "openmpi-rpath-origin"),
          {"/opt/conda/conda-meta/openmpi-4.1.4-h0_100.json": text(json.dumps(record))},
          env={"PATH": "/opt/conda/bin:/usr/bin:/bin"})  # fmt: skip
    image("plain", debian, at("/usr/local/bin/plain", "plain"))
    image("base-only", debian)
    image("static", {**at("/plain", "plain-static")}, Entrypoint=["/plain"], env={"PATH": "/"})
    alpine = {"/etc/os-release": text("ID=alpine\nVERSION_ID=3.20.1\n"), "/lib/ld-musl-x86_64.so.1": blob(husk((root / "lib/x86_64-linux-musl/libc.so").read_bytes())),
              "/lib/apk/db/installed": text("P:musl\nV:1.2.3-r1\n\nP:busybox\nV:1.36.1-r0\n\n")}  # fmt: skip
    image("musl", alpine, at("/usr/local/bin/plain", "musl"))
    image("musl-static", {**at("/plain", "musl-static")}, Entrypoint=["/plain"])
    cuda_images(debian, at, cuda)
    image(
        "rocm",
        debian,
        at("/opt/app/bin/rocm", "rocm"),
        {"/opt/rocm/.info/version": text("6.2.0-66\n")},
        Entrypoint=["/opt/app/bin/rocm"],
    )
    hsaco = {
        "/opt/app/bin/plain": program("plain"),
        "/opt/app/share/k.hsaco": blob((work / "gfx90a.hsaco").read_bytes()),
    }
    image("rocm-code-object", debian, hsaco, Entrypoint=["/opt/app/bin/plain"])
    records_of_managers(debian, openmpi, opt, at)


def cuda_images(debian, at, cuda) -> None:  # type: ignore[no-untyped-def]
    nvidia = {"CUDA_VERSION": "13.0.1", "NVIDIA_REQUIRE_CUDA": "cuda>=13.0", "NVIDIA_VISIBLE_DEVICES": "all"}
    for name in ("multi", "sass", "compressed", "plain", "rdc", "family"):
        image(f"cuda-{name}", debian, at("/opt/app/bin/saxpy", f"cuda-{name}"), Entrypoint=["/opt/app/bin/saxpy"])
    cudart = blob(husk((cuda / "lib/libcudart.so.13").read_bytes()))
    toolkit = {"/usr/local/cuda-13.0/lib64/libcudart.so.13": {"link": "libcudart.so.13.0.88"},
               "/usr/local/cuda-13.0/lib64/libcudart.so.13.0.88": cudart, "/usr/local/cuda": {"link": "cuda-13.0"},
               "/etc/ld.so.conf.d/000_cuda.conf": text("/usr/local/cuda/lib64\n")}  # fmt: skip
    image(
        "cuda-ptx", debian, toolkit, at("/opt/app/bin/saxpy", "cuda-ptx"), Entrypoint=["/opt/app/bin/saxpy"], env=nvidia
    )
    image("cuda-library", debian, toolkit, at("/opt/app/lib/libkernels.so", "libkernels.so"), at("/opt/app/bin/app", "uses-kernels"),
          env={"PATH": "/opt/app/bin:/usr/bin"})  # fmt: skip
    image("nvidia-base", debian, toolkit, env=nvidia)
    site = "/usr/lib/python3/dist-packages"
    pip = {f"{site}/torch-2.3.0+cu121.dist-info/METADATA": text("Metadata-Version: 2.1\nName: torch\nVersion: 2.3.0+cu121\n"),
           f"{site}/nvidia_cuda_runtime_cu12-12.1.105.dist-info/METADATA": text("Name: nvidia-cuda-runtime-cu12\nVersion: 12.1.105\n"),
           **at(f"{site}/torch/lib/libtorch_cuda.so", "libtorch_cuda.so"), **at("/usr/bin/python3", "plain")}  # fmt: skip
    image("pip-torch", debian, pip)


def records_of_managers(debian, openmpi, opt, at) -> None:  # type: ignore[no-untyped-def]
    """Trees as EasyBuild and Spack leave them, around programs that were linked as they link."""
    software = "/opt/easybuild/software"
    easyconfig = "name = 'hello'\nversion = '1.0'\ntoolchain = {'name': 'gompi', 'version': '1'}\nmoduleclass = 'tools'\n" \
                 "dependencies = []\ntoolchainopts = {'usempi': True}\n"  # fmt: skip
    gompi = "name = 'gompi'\nversion = '1'\ntoolchain = {'name': 'system', 'version': 'system'}\nmoduleclass = 'toolchain'\n" \
            "dependencies = [('OpenMPI', '4.1.4')]\n"  # fmt: skip
    mpi = "name = 'OpenMPI'\nversion = '4.1.4'\ntoolchain = {'name': 'system', 'version': 'system'}\nmoduleclass = 'mpi'\n"
    tree_of = {f"{software}/hello/1.0-gompi-1/easybuild/reprod/hello-1.0-gompi-1.eb": text(easyconfig),
               f"{software}/gompi/1/easybuild/reprod/gompi-1.eb": text(gompi),
               f"{software}/OpenMPI/4.1.4/easybuild/reprod/OpenMPI-4.1.4.eb": text(mpi),
               "/opt/hpc3build/easybuild.json": text('{"roots": ["hello/1.0-gompi-1"]}'),
               **at(f"{software}/hello/1.0-gompi-1/bin/hello", "openmpi")}  # fmt: skip
    image("easybuild", debian, openmpi, tree_of)
    libs = {path.replace("/opt/openmpi", SPACK_MPI): entry for path, entry in opt.items()}
    prefix = f"{STORE}/hello-1.0-{'a' * 32}"
    arch = {"platform": "linux", "platform_os": "debian12", "target": {"name": "zen3"}}
    specs = {"a" * 32: {"name": "hello", "version": "1.0", "arch": arch, "parameters": {"mpi": True}, "hash": "a" * 32,
                        "dependencies": [{"name": "openmpi", "hash": "b" * 32, "parameters": {"deptypes": ["link"], "virtuals": ["mpi"]}}]},
             "b" * 32: {"name": "openmpi", "version": "4.1.5", "arch": arch, "parameters": {"fabrics": ["ucx"]}, "hash": "b" * 32}}  # fmt: skip
    lock = {"_meta": {"file-type": "spack-lockfile", "lockfile-version": 5, "specfile-version": 4},
            "roots": [{"hash": "a" * 32, "spec": "hello"}], "concrete_specs": specs}  # fmt: skip
    image("spack", debian, libs, at(f"{prefix}/bin/hello", "openmpi-rpath-spack"),
          {"/opt/spack-environment/spack.lock": text(json.dumps(lock))})  # fmt: skip
    records = {f"{STORE}/{spec['name']}-{spec['version']}-{key}/.spack/spec.json":
               text(json.dumps({"spec": {"_meta": {"version": 4}, "nodes": [spec, *(other for name, other in specs.items() if name != key)]}}))
               for key, spec in specs.items()}  # fmt: skip
    installs = {key: {"spec": spec, "path": f"{STORE}/{spec['name']}-{spec['version']}-{key}", "installed": True, "explicit": key[0] == "a"}
                for key, spec in specs.items()}  # fmt: skip
    database = {"database": {"version": "7", "installs": installs}}
    image("spack-prefix", debian, libs, at(f"{prefix}/bin/hello", "openmpi-rpath-spack"), records,
          {"/opt/software/.spack-db/index.json": text(json.dumps(database))}, env={"PATH": f"{prefix}/bin:/usr/bin"})  # fmt: skip


def write() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(blobs.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    import lzma

    (HERE / "blobs.tar.xz").write_bytes(lzma.compress(stream.getvalue(), preset=6))
    (HERE / "images.json").write_text(json.dumps(images, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    fetch()
    programs()
    define()
    write()
    print(f"{len(images)} images, {(HERE / 'blobs.tar.xz').stat().st_size >> 10} KiB of files")
