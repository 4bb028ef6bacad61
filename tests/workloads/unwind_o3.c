// options: -O3 -fomit-frame-pointer -falign-functions=1 -fno-builtin-ffs -pthread
// As unwind.c, at the highest optimisation.
#include "unwind.c"
