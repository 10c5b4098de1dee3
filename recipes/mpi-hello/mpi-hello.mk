CC = mpicc
CFLAGS = -O2

mpi-hello: mpi-hello.c
	$(CC) $(CFLAGS) -std=gnu99 -o $@ $<
