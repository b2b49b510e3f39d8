/* fuzz.h - what the harnesses share. Deterministic: no clock, no chance of their own. */
#ifndef GW_FUZZ_H
#define GW_FUZZ_H

#include "internal.h"
#include "oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The finding: say what does not hold, then crash. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Takes bytes off the front of the input; zeros when it has run out. */
typedef struct {
    const uint8_t *data;
    size_t left;
} input;

static inline uint8_t take(input *in) {
    if (!in->left)
        return 0;
    in->left--;
    return *in->data++;
}

static inline uint64_t take_number(input *in, int bytes) {
    uint64_t v = 0;
    while (bytes--)
        v = v << 8 | take(in);
    return v;
}

/* Use one engine per input, so that all are reached: which one is the input's choice. */
static inline void choose_engine(unsigned pick) {
    static uint32_t usable[8], n;
    if (!n)
        for (uint32_t i = 0; gw_engine_list(i); i++)
            if (gw_engine_available(gw_engine_list(i)))
                usable[n++] = i;
    MUST(gw_engine_force_for_testing(gw_engine_list(usable[pick % n])) == GW_OK);
}

#endif
