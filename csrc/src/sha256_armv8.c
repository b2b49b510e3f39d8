/* sha256_armv8.c - ARMv8 with the SHA-2 instructions, 64 and 32 bit: one stream, and two streams interleaved.
 *
 * The reason for two streams is the one of sha256_shani.c. Targets are set by pragma before <arm_neon.h>: the files of
 * a Python extension are all compiled with the same flags, and the intrinsics exist only under the right target.
 * clang on 32-bit ARM takes neither form; it is built with GW_NO_ARM32_SHA2 and signs with the portable engine. */
#include "internal.h"

#if defined(__aarch64__) && defined(__linux__)
#define GW_ARMV8 1
#elif defined(__arm__) && defined(__linux__) && !defined(__clang__) && !defined(GW_NO_ARM32_SHA2)
#define GW_ARMV8 1
#endif

#ifdef GW_ARMV8

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("sha2"))), apply_to = function)
#elif defined(__aarch64__)
#pragma GCC target("+crypto")
#else
#pragma GCC target("arch=armv8-a+simd+crypto")
#pragma GCC target("fpu=crypto-neon-fp-armv8")
#endif
#include <arm_neon.h>
#include <sys/auxv.h>

static int available(void) {
    /* The kernel's bits, by value: asm/hwcap.h of the other width has other names for them. */
#if defined(__aarch64__)
    return (getauxval(AT_HWCAP) >> 6 & 1) != 0; /* HWCAP_SHA2 */
#else
    return (getauxval(AT_HWCAP2) >> 3 & 1) != 0; /* HWCAP2_SHA2 */
#endif
}

typedef struct {
    uint32x4_t abcd, efgh, w[4];
} stream;

__attribute__((always_inline)) static inline void stream_words(stream *s, const uint8_t *block) {
    for (int i = 0; i < 4; i++)
        s->w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * i)));
}

/* Rounds 4i to 4i + 3; the word group used up here becomes the one that is due four steps later. */
__attribute__((always_inline)) static inline void stream_step(stream *s, int i) {
    uint32x4_t sum = vaddq_u32(s->w[i & 3], vld1q_u32(gw_sha256_k + 4 * i));
    uint32x4_t abcd = s->abcd;
    if (i < 12)
        s->w[i & 3] = vsha256su1q_u32(vsha256su0q_u32(s->w[i & 3], s->w[(i + 1) & 3]), s->w[(i + 2) & 3],
                                      s->w[(i + 3) & 3]);
    s->abcd = vsha256hq_u32(s->abcd, s->efgh, sum);
    s->efgh = vsha256h2q_u32(s->efgh, abcd, sum);
}

#define SIXTEEN(STEP)                                                                                                  \
    STEP(0); STEP(1); STEP(2); STEP(3); STEP(4); STEP(5); STEP(6); STEP(7);                                            \
    STEP(8); STEP(9); STEP(10); STEP(11); STEP(12); STEP(13); STEP(14); STEP(15)

static void compress(uint32_t state[8], const uint8_t *blocks, size_t n) {
    stream s;
    s.abcd = vld1q_u32(state);
    s.efgh = vld1q_u32(state + 4);
    for (; n > 0; n--, blocks += SHA_BLOCK) {
        uint32x4_t abcd = s.abcd, efgh = s.efgh;
        stream_words(&s, blocks);
#define STEP(i) stream_step(&s, i)
        SIXTEEN(STEP);
#undef STEP
        s.abcd = vaddq_u32(s.abcd, abcd);
        s.efgh = vaddq_u32(s.efgh, efgh);
    }
    vst1q_u32(state, s.abcd);
    vst1q_u32(state + 4, s.efgh);
}

static void compress2(uint32_t a[8], const uint8_t *pa, uint32_t b[8], const uint8_t *pb, size_t n) {
    stream s, t;
    s.abcd = vld1q_u32(a);
    s.efgh = vld1q_u32(a + 4);
    t.abcd = vld1q_u32(b);
    t.efgh = vld1q_u32(b + 4);
    for (; n > 0; n--, pa += SHA_BLOCK, pb += SHA_BLOCK) {
        uint32x4_t s_abcd = s.abcd, s_efgh = s.efgh, t_abcd = t.abcd, t_efgh = t.efgh;
        stream_words(&s, pa);
        stream_words(&t, pb);
#define STEP(i)                                                                                                        \
    stream_step(&s, i);                                                                                                \
    stream_step(&t, i)
        SIXTEEN(STEP);
#undef STEP
        s.abcd = vaddq_u32(s.abcd, s_abcd);
        s.efgh = vaddq_u32(s.efgh, s_efgh);
        t.abcd = vaddq_u32(t.abcd, t_abcd);
        t.efgh = vaddq_u32(t.efgh, t_efgh);
    }
    vst1q_u32(a, s.abcd);
    vst1q_u32(a + 4, s.efgh);
    vst1q_u32(b, t.abcd);
    vst1q_u32(b + 4, t.efgh);
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

const gw_engine gw_engine_armv8 = {"armv8-ce x2", available, compress, compress2, gw_base64_portable};

#else

static int never(void) {
    return 0;
}

const gw_engine gw_engine_armv8 = {"armv8-ce x2", never, NULL, NULL, NULL};

#endif
