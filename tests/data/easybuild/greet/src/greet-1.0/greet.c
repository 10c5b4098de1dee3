#include <libgreet.h>
#include <stdio.h>

static double y[COEFFICIENTS];

/* The program's own loop, beside the library's. */
__attribute__((noinline)) static void shift(double by, double scale)
{
    for (int i = 0; i < COEFFICIENTS; i++)
        y[i] = y[i] * scale + by;
}

/* Whole numbers: the same sum, 2 * 64 * 65 / 2 + 64, with every instruction set. */
int main(void)
{
    volatile double one = 1.0;
    double sum = 0.0;
    greet_scale_and_add(2.0 * one, greet_coefficients(), y, COEFFICIENTS);
    shift(one, one);
    for (int i = 0; i < COEFFICIENTS; i++)
        sum += y[i];
    printf("%s: %.0f\n", GREETING, sum);
    return sum != 4224.0;
}
