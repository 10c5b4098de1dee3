#include "libgreet.h"

/* From the module hpcdata, which only the build needs. */
static const double coefficients[COEFFICIENTS] = {
#include "coefficients.inc"
};

const double *greet_coefficients(void) { return coefficients; }

/* y += scale * x: mulpd and addpd for plain x86-64, vfmadd on whole registers from x86-64-v3 on. */
void greet_scale_and_add(double scale, const double *restrict x, double *restrict y, int length)
{
    for (int i = 0; i < length; i++)
        y[i] += scale * x[i];
}
