/* sha256_shani.c - x86 with the SHA extensions: one stream, and two streams interleaved.
 *
 * One sha256rnds2 waits for the one before it, four cycles on Zen 3, while the unit could start another after two. A
 * second, independent stream fills that gap: two compressions take little longer than one. The functions carry their
 * own target, because the files of a Python extension are all compiled with the same flags. */
#include "internal.h"

#if defined(__x86_64__) || defined(__i386__)

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("sha,sse4.1,ssse3")))
#define TARGET_INLINE __attribute__((target("sha,sse4.1,ssse3"), always_inline)) static inline

static int available(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* One stream: the hash state in the order the instructions want, and the sixteen live words of the schedule. */
typedef struct {
    __m128i abef, cdgh, w[4];
} stream;

TARGET_INLINE void stream_load(stream *s, const uint32_t state[8]) {
    __m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    s->abef = _mm_alignr_epi8(dcba, hgfe, 8);
    s->cdgh = _mm_blend_epi16(hgfe, dcba, 0xf0);
}

TARGET_INLINE void stream_store(const stream *s, uint32_t state[8]) {
    __m128i feba = _mm_shuffle_epi32(s->abef, 0x1b);
    __m128i dchg = _mm_shuffle_epi32(s->cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

TARGET_INLINE void stream_words(stream *s, const uint8_t *block) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (int i = 0; i < 4; i++)
        s->w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), swap);
}

/* Rounds 4i to 4i + 3. The schedule is made as it is used up: w[i + 1] is finished here for the next step, and
 * w[i - 1] gets the first half of its next value. i is a constant wherever this is expanded. */
TARGET_INLINE void stream_step(stream *s, int i) {
    __m128i now = s->w[i & 3];
    __m128i sum = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(gw_sha256_k + 4 * i)));
    s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, sum);
    if (i >= 3 && i < 15) {
        __m128i mid = _mm_alignr_epi8(now, s->w[(i + 3) & 3], 4);
        s->w[(i + 1) & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(s->w[(i + 1) & 3], mid), now);
    }
    s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, _mm_shuffle_epi32(sum, 0x0e));
    if (i >= 1 && i < 13)
        s->w[(i + 3) & 3] = _mm_sha256msg1_epu32(s->w[(i + 3) & 3], now);
}

#define SIXTEEN(STEP)                                                                                                  \
    STEP(0); STEP(1); STEP(2); STEP(3); STEP(4); STEP(5); STEP(6); STEP(7);                                            \
    STEP(8); STEP(9); STEP(10); STEP(11); STEP(12); STEP(13); STEP(14); STEP(15)

TARGET static void compress(uint32_t state[8], const uint8_t *blocks, size_t n) {
    stream s;
    stream_load(&s, state);
    for (; n > 0; n--, blocks += SHA_BLOCK) {
        __m128i abef = s.abef, cdgh = s.cdgh;
        stream_words(&s, blocks);
#define STEP(i) stream_step(&s, i)
        SIXTEEN(STEP);
#undef STEP
        s.abef = _mm_add_epi32(s.abef, abef);
        s.cdgh = _mm_add_epi32(s.cdgh, cdgh);
    }
    stream_store(&s, state);
}

TARGET static void compress2(uint32_t a[8], const uint8_t *pa, uint32_t b[8], const uint8_t *pb, size_t n) {
    stream s, t;
    stream_load(&s, a);
    stream_load(&t, b);
    for (; n > 0; n--, pa += SHA_BLOCK, pb += SHA_BLOCK) {
        __m128i s_abef = s.abef, s_cdgh = s.cdgh, t_abef = t.abef, t_cdgh = t.cdgh;
        stream_words(&s, pa);
        stream_words(&t, pb);
#define STEP(i)                                                                                                        \
    stream_step(&s, i);                                                                                                \
    stream_step(&t, i)
        SIXTEEN(STEP);
#undef STEP
        s.abef = _mm_add_epi32(s.abef, s_abef);
        s.cdgh = _mm_add_epi32(s.cdgh, s_cdgh);
        t.abef = _mm_add_epi32(t.abef, t_abef);
        t.cdgh = _mm_add_epi32(t.cdgh, t_cdgh);
    }
    stream_store(&s, a);
    stream_store(&t, b);
}

/* Sixteen characters from twelve digest bytes, which `pick` brings from host-endian words into the order b a c b that
 * the multiplications want: each 32-bit lane then holds four sextets, which two multiplications move to their bytes. */
TARGET_INLINE uint64_t sixteen(char *out, __m128i words, __m128i pick) {
    __m128i in = _mm_shuffle_epi8(words, pick);
    __m128i ac = _mm_mulhi_epu16(_mm_and_si128(in, _mm_set1_epi32(0x0fc0fc00)), _mm_set1_epi32(0x04000040));
    __m128i bd = _mm_mullo_epi16(_mm_and_si128(in, _mm_set1_epi32(0x003f03f0)), _mm_set1_epi32(0x01000010));
    __m128i v = _mm_or_si128(ac, bd);
    /* What to add to a sextet, by range: 0-25 row 13, 26-51 row 0, 52-61 rows 1-10, 62 row 11, 63 row 12. */
    const __m128i shift = _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                                        '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0);
    __m128i row = _mm_subs_epu8(v, _mm_set1_epi8(51));
    __m128i upper = _mm_cmpgt_epi8(_mm_set1_epi8(26), v);
    row = _mm_or_si128(row, _mm_and_si128(upper, _mm_set1_epi8(13)));
    _mm_storeu_si128((__m128i *)out, _mm_add_epi8(v, _mm_shuffle_epi8(shift, row)));
    return (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpgt_epi8(v, _mm_set1_epi8(61)));
}

TARGET static uint64_t base64(char out[48], const uint32_t digest[8]) {
    /* Digest byte j lies at j ^ 3 in little-endian words. The first two picks take bytes 0 to 11 of what they are
     * given, the last takes bytes 8 to 15 and zeros. */
    const __m128i twelve = _mm_setr_epi8(2, 3, 1, 2, 7, 0, 6, 7, 4, 5, 11, 4, 9, 10, 8, 9);
    const __m128i eight = _mm_setr_epi8(10, 11, 9, 10, 15, 8, 14, 15, 12, 13, -1, 12, -1, -1, -1, -1);
    uint64_t escapes = sixteen(out, _mm_loadu_si128((const __m128i *)digest), twelve);
    escapes |= sixteen(out + 16, _mm_loadu_si128((const __m128i *)(digest + 3)), twelve) << 16;
    escapes |= sixteen(out + 32, _mm_loadu_si128((const __m128i *)(digest + 4)), eight) << 32;
    out[43] = '=';
    return escapes & (((uint64_t)1 << 43) - 1);
}

const gw_engine gw_engine_shani = {"sha-ni x2", available, compress, compress2, base64};

#else

static int never(void) {
    return 0;
}

const gw_engine gw_engine_shani = {"sha-ni x2", never, NULL, NULL, NULL};

#endif
