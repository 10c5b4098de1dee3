/* Which MPI library is bound, and whether the ranks find each other. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
    int length, rank, ranks, sum, mine;

    /* Allowed before MPI_Init: even where starting MPI fails, the log tells which library it was. */
    MPI_Get_library_version(library, &length);
    library[strcspn(library, "\n")] = '\0';
    printf("MPI library: %s\n", library);
    fflush(stdout);

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    mine = rank + 1;
    MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0)
        printf("ranks %d sum %d\n", ranks, sum);
    MPI_Finalize();
    return sum != ranks * (ranks + 1) / 2;
}
