from spack.package import Executable, depends_on, join_path, license, mkdirp, version
from spack_repo.builtin.build_systems.generic import Package


class HelloMpi(Package):
    """Says which MPI library it is bound to, and sums over its ranks. Its source lies beside this file."""

    homepage = "https://www.mpi-forum.org/"
    has_code = False

    license("Apache-2.0")

    version("1.0")

    depends_on("c", type="build")
    depends_on("mpi")

    def install(self, spec, prefix):
        mkdirp(prefix.bin)
        mpicc = Executable(spec["mpi"].mpicc)
        mpicc("-O2", "-o", prefix.bin.join("hello-mpi"), join_path(self.package_dir, "hello-mpi.c"))
