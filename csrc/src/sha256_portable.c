/* sha256_portable.c - the engine that is always there: FIPS 180-4 section 6.2 in plain C, and base64 eight characters at a time. */
#include "internal.h"

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes, and of the square roots of the
 * first 8. tests/csrc recomputes both from the primes. */
const uint32_t gw_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
const uint32_t gw_sha256_iv[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static inline uint32_t rotr(uint32_t x, unsigned n) {
    return (x >> n) | (x << (32 - n));
}

static inline uint32_t load_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

/* The sixteen words of the schedule that are still needed live in w and are renewed in place. What is left of them
 * on the stack is for gw_wipe_stack, once per call rather than once per block. */
static inline uint32_t next_word(uint32_t w[16], unsigned i) {
    uint32_t w15 = w[(i + 1) & 15], w2 = w[(i + 14) & 15];
    uint32_t s0 = rotr(w15, 7) ^ rotr(w15, 18) ^ (w15 >> 3);
    uint32_t s1 = rotr(w2, 17) ^ rotr(w2, 19) ^ (w2 >> 10);
    return w[i & 15] += s0 + w[(i + 9) & 15] + s1;
}

#define ROUND(a, b, c, d, e, f, g, h, i, word)                                                                         \
    do {                                                                                                               \
        uint32_t t = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + (g ^ (e & (f ^ g))) + gw_sha256_k[i] + (word);     \
        d += t;                                                                                                        \
        h = t + (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) | (c & (a | b)));                                  \
    } while (0)

#define EIGHT_ROUNDS(i, W)                                                                                             \
    ROUND(a, b, c, d, e, f, g, h, (i) + 0, W((i) + 0));                                                                \
    ROUND(h, a, b, c, d, e, f, g, (i) + 1, W((i) + 1));                                                                \
    ROUND(g, h, a, b, c, d, e, f, (i) + 2, W((i) + 2));                                                                \
    ROUND(f, g, h, a, b, c, d, e, (i) + 3, W((i) + 3));                                                                \
    ROUND(e, f, g, h, a, b, c, d, (i) + 4, W((i) + 4));                                                                \
    ROUND(d, e, f, g, h, a, b, c, (i) + 5, W((i) + 5));                                                                \
    ROUND(c, d, e, f, g, h, a, b, (i) + 6, W((i) + 6));                                                                \
    ROUND(b, c, d, e, f, g, h, a, (i) + 7, W((i) + 7))

#define GIVEN(i) (w[i] = load_be32(blocks + 4 * (i)))
#define NEXT(i) next_word(w, (i))

static void compress(uint32_t state[8], const uint8_t *blocks, size_t n) {
    uint32_t w[16];
    for (; n > 0; n--, blocks += SHA_BLOCK) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        EIGHT_ROUNDS(0u, GIVEN);
        EIGHT_ROUNDS(8u, GIVEN);
        for (unsigned i = 16; i < 64; i += 16) {
            EIGHT_ROUNDS(i, NEXT);
            EIGHT_ROUNDS(i + 8, NEXT);
        }
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
        state[4] += e;
        state[5] += f;
        state[6] += g;
        state[7] += h;
    }
}

static void compress2(uint32_t a[8], const uint8_t *pa, uint32_t b[8], const uint8_t *pb, size_t n) {
    compress(a, pa, n);
    compress(b, pb, n);
}

/* Eight sextets in the bytes of a word, first in the top byte. Each step halves the lanes and doubles the gaps. */
static inline uint64_t spread(uint64_t bits48) {
    uint64_t x = (bits48 & 0xffffff000000) << 8 | (bits48 & 0xffffff);
    x = (x & 0x00fff00000fff000) << 4 | (x & 0x00000fff00000fff);
    return (x & 0x0fc00fc00fc00fc0) << 2 | (x & 0x003f003f003f003f);
}

#define EACH 0x0101010101010101u

/* 1 in each byte of v, all below 64, that is over n. Adding 127 - n sets the top bit of just those. */
static inline uint64_t over(uint64_t v, unsigned n) {
    return (v + (127 - n) * EACH) >> 7 & EACH;
}

uint64_t gw_base64_portable(char out[48], const uint32_t digest[8]) {
    uint64_t escapes = 0;
    for (unsigned i = 0; i < 6; i++) {
        /* 48 bits from bit 48i of the digest; the last of the 288 are the padding. */
        unsigned word = 48 * i / 32, shift = 48 * i % 32;
        uint64_t pair = (uint64_t)digest[word] << 32 | (word + 1 < 8 ? digest[word + 1] : 0);
        uint64_t v = spread(pair << shift >> 16);
        /* 'A' plus what each later range of the alphabet adds; no byte carries or borrows on the way. */
        uint64_t text = v + 'A' * EACH + 6 * over(v, 25) - 75 * over(v, 51) - 15 * over(v, 61) + 3 * over(v, 62);
        gw_store_be64((uint8_t *)out + 8 * i, text);
        escapes |= (over(v, 61) * 0x8040201008040201u >> 56) << 8 * i; /* top byte to bit 0, and so on down */
    }
    out[43] = '=';
    return escapes & (((uint64_t)1 << 43) - 1);
}

static int always(void) {
    return 1;
}

const gw_engine gw_engine_portable = {"portable", always, compress, compress2, gw_base64_portable};
