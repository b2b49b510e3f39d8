/* Every engine's compressions and base64, held to the oracle: one block and many, alone and in pairs, at any alignment. */
#include "check.h"

enum { BLOCKS = 5 };

/* SHA-256 of `len` bytes by the engine, with the message placed `shift` bytes off alignment. */
static void engine_sha256(const gw_engine *engine, const uint8_t *message, size_t len, size_t shift, uint8_t out[32]) {
    uint8_t room[BLOCKS * 64 + 16] = {0};
    uint8_t *m = room + shift;
    size_t blocks = (len + 9 + 63) / 64;
    uint32_t state[8];
    memcpy(m, message, len);
    m[len] = 0x80;
    gw_store_be64(m + blocks * 64 - 8, (uint64_t)len * 8);
    memcpy(state, gw_sha256_iv, sizeof state);
    engine->compress(state, m, blocks);
    for (size_t i = 0; i < 8; i++)
        gw_store_be32(out + 4 * i, state[i]);
}

/* Every length up to four blocks and more: 55/56 and 119/120 are where the padding takes another block, 63/64/65 and
 * 127/128/129 where the message does. */
static void lengths(const gw_engine *engine) {
    uint8_t message[BLOCKS * 64], got[32], want[32];
    cycle_bytes(message, sizeof message);
    for (size_t len = 0; len <= BLOCKS * 64 - 9; len++) {
        oracle_sha256(message, len, want);
        engine_sha256(engine, message, len, len % 16, got);
        CHECK(memcmp(got, want, 32) == 0);
    }
}

/* Two different messages at once equal each alone, for every number of blocks and with the lanes exchanged. */
static void pairs(const gw_engine *engine) {
    uint8_t a[BLOCKS * 64], b[BLOCKS * 64];
    for (size_t n = 0; n <= BLOCKS; n++) {
        uint32_t both[2][8], alone[2][8];
        chance_bytes(a, sizeof a);
        chance_bytes(b, sizeof b);
        chance_bytes((uint8_t *)both, sizeof both);
        memcpy(alone, both, sizeof alone);
        engine->compress2(both[0], a, both[1], b, n);
        gw_engine_portable.compress(alone[0], a, n);
        gw_engine_portable.compress(alone[1], b, n);
        CHECK(memcmp(both, alone, sizeof both) == 0);
    }
}

/* All blocks at once equal the blocks one by one. */
static void splits(const gw_engine *engine) {
    uint8_t message[BLOCKS * 64];
    uint32_t whole[8], parts[8];
    chance_bytes(message, sizeof message);
    for (size_t at = 0; at <= BLOCKS; at++) {
        memcpy(whole, gw_sha256_iv, sizeof whole);
        memcpy(parts, gw_sha256_iv, sizeof parts);
        engine->compress(whole, message, BLOCKS);
        engine->compress(parts, message, at);
        engine->compress(parts, message + at * 64, BLOCKS - at);
        CHECK(memcmp(whole, parts, sizeof whole) == 0);
    }
}

static void base64(const gw_engine *engine) {
    for (int round = 0; round < 4000; round++) {
        uint8_t bytes[32];
        uint32_t words[8];
        char want[64], got[48];
        chance_bytes(bytes, sizeof bytes);
        if (round < 64) /* every sextet in every place: each value fills all of them but the last, which has four bits */
            for (size_t i = 0; i < 32; i++)
                bytes[i] = (uint8_t)((unsigned)round * 0x41041u >> (16 - 8 * (i % 3)));
        for (size_t i = 0; i < 8; i++)
            words[i] = (uint32_t)bytes[4 * i] << 24 | (uint32_t)bytes[4 * i + 1] << 16 |
                       (uint32_t)bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
        uint64_t escapes = engine->base64(got, words), expected = 0;
        oracle_base64(bytes, 32, want);
        for (size_t i = 0; i < 43; i++)
            expected |= (uint64_t)(want[i] == '+' || want[i] == '/') << i;
        CHECK(memcmp(got, want, 44) == 0);
        CHECK(escapes == expected);
    }
}

static const gw_engine *honest;

static void wrong_compress(uint32_t state[8], const uint8_t *blocks, size_t n) {
    honest->compress(state, blocks, n);
    state[7] ^= n > 1; /* right for one block, wrong for more */
}

static void one_lane_twice(uint32_t a[8], const uint8_t *pa, uint32_t b[8], const uint8_t *pb, size_t n) {
    honest->compress2(a, pa, b, pb, n);
    memcpy(b, a, 32);
}

static void lanes_exchanged(uint32_t a[8], const uint8_t *pa, uint32_t b[8], const uint8_t *pb, size_t n) {
    honest->compress2(a, pb, b, pa, n);
}

static uint64_t no_escapes(char out[48], const uint32_t digest[8]) {
    (void)honest->base64(out, digest);
    return 0;
}

static uint64_t wrong_letter(char out[48], const uint32_t digest[8]) {
    uint64_t escapes = honest->base64(out, digest);
    for (int i = 0; i < 43; i++)
        if (out[i] == 'z')
            out[i] = '0';
    return escapes;
}

/* The known answers see each way to be wrong: an engine that passes them by luck would sign. */
static void a_wrong_engine_is_seen(const gw_engine *engine) {
    gw_engine wrong = *engine;
    honest = engine;
    CHECK(gw_engine_is_right(engine));
    wrong.compress = wrong_compress;
    CHECK(!gw_engine_is_right(&wrong));
    wrong = *engine;
    wrong.compress2 = one_lane_twice;
    CHECK(!gw_engine_is_right(&wrong));
    wrong.compress2 = lanes_exchanged;
    CHECK(!gw_engine_is_right(&wrong));
    wrong = *engine;
    wrong.base64 = no_escapes;
    CHECK(!gw_engine_is_right(&wrong));
    wrong.base64 = wrong_letter;
    CHECK(!gw_engine_is_right(&wrong));
}

static void all(const gw_engine *engine) {
    a_wrong_engine_is_seen(engine);
    lengths(engine);
    pairs(engine);
    splits(engine);
    base64(engine);
}

int main(void) {
    CHECK(gw_engine_now() == NULL);
    CHECK(strcmp(gw_engine_name(), "") == 0);
    CHECK(gw_engine_force_for_testing("no such engine") == GW_ERR_ENGINE);
    each_engine(all);
    return check_report("engines");
}
