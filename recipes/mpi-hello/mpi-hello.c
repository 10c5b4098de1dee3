/* The smallest program that shows what an image's MPI is: which library is bound, whether ranks find each other,
 * and (in its one loop) which instruction set the compiler was told to use. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#define LENGTH 1024

/* Filled at run time, and volatile where they are filled, so that the loop below can't be computed by the compiler. */
static double x[LENGTH], y[LENGTH];

/* y += scale * x: mulpd and addpd for plain x86-64, vfmadd from x86-64-v3 on. */
__attribute__((noinline)) static void scale_and_add(double scale, int length)
{
    for (int i = 0; i < length; i++)
        y[i] += scale * x[i];
}

/* rank + 1, by a detour through floating point that is exact for every instruction set. */
static double contribution(int rank)
{
    volatile double one = 1.0;
    for (int i = 0; i < LENGTH; i++) {
        x[i] = one;
        y[i] = rank;
    }
    scale_and_add(one, LENGTH);
    double sum = 0.0;
    for (int i = 0; i < LENGTH; i++)
        sum += y[i];
    return sum / LENGTH;
}

int main(int argc, char **argv)
{
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
    int length, rank, ranks;
    struct utsname host;

    /* Allowed before MPI_Init: even where starting MPI fails, the log tells which library it was. */
    MPI_Get_library_version(library, &length);
    library[strcspn(library, "\n")] = '\0'; /* MPICH tells its whole configuration on further lines */
    printf("MPI library: %s\n", library);
    fflush(stdout);

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);

    double mine = contribution(rank), sum = 0.0;
    MPI_Allreduce(&mine, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    int wrong = sum != 0.5 * ranks * (ranks + 1.0);
    if (rank == 0) {
        const char *machine = uname(&host) == 0 ? host.machine : "unknown";
        printf("ranks %d sum %.0f on %s lib %s\n", ranks, sum, machine, library);
        if (wrong)
            fprintf(stderr, "mpi-hello: the sum should have been %.0f\n", 0.5 * ranks * (ranks + 1.0));
    }
    MPI_Finalize();
    return wrong;
}
