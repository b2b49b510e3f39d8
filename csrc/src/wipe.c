/* wipe.c - clearing secrets so that no compiler drops it. See gw_sas.h. */
#define _DEFAULT_SOURCE 1
#include <string.h>

#include "internal.h"

void gw_wipe(void *p, size_t len) {
    if (len == 0)
        return;
#if defined(__GLIBC__) || defined(__FreeBSD__) || defined(__OpenBSD__)
    explicit_bzero(p, len);
#elif defined(__GNUC__)
    memset(p, 0, len);
    __asm__ volatile("" : : "r"(p) : "memory"); /* the compiler must assume that the zeros are read */
#else
    volatile uint8_t *v = p;
    while (len--)
        *v++ = 0;
#endif
}

/* The widest engine frame spills two hash states and two message schedules: under 1 KiB with gcc and clang at every
 * optimisation level but -O0. noinline, so that this frame lies where the engine's frame was. */
__attribute__((noinline)) void gw_wipe_stack(void) {
    uint8_t burn[1536];
    gw_wipe(burn, sizeof burn);
}
