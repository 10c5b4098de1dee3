#define GREETING "To be patched"
#define COEFFICIENTS 64
const double *greet_coefficients(void);
void greet_scale_and_add(double scale, const double *restrict x, double *restrict y, int length);
