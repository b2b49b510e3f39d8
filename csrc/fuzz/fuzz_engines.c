/* Target functions: compress compress2 base64 of every engine
 *
 * The input gives two states and two runs of blocks. Every engine must give what the oracle gives for a whole message,
 * and what the portable engine gives from any state. */
#include "fuzz.h"

static void whole_message(const gw_engine *engine, const uint8_t *data, size_t size) {
    uint8_t want[32];
    uint32_t state[8];
    size_t blocks = (size + 9 + 63) / 64;
    uint8_t *padded = calloc(blocks, 64);
    MUST(padded);
    if (size)
        memcpy(padded, data, size);
    padded[size] = 0x80;
    gw_store_be64(padded + blocks * 64 - 8, (uint64_t)size * 8);
    memcpy(state, gw_sha256_iv, sizeof state);
    engine->compress(state, padded, blocks);
    oracle_sha256(data, size, want);
    for (size_t i = 0; i < 8; i++)
        MUST(state[i] == ((uint32_t)want[4 * i] << 24 | (uint32_t)want[4 * i + 1] << 16 | (uint32_t)want[4 * i + 2] << 8 |
                          want[4 * i + 3]));
    free(padded);
}

static void any_state(const gw_engine *engine, const uint8_t *data, size_t size) {
    uint32_t a[8], b[8], c[8], d[8];
    char text[48], plain[48];
    if (size < 64 + 128)
        return;
    memcpy(a, data, 32);
    memcpy(b, data + 32, 32);
    memcpy(c, a, 32);
    memcpy(d, b, 32);
    MUST(engine->base64(text, a) == gw_engine_portable.base64(plain, a) && !memcmp(text, plain, 44));
    size_t n = (size - 64) / 128;
    engine->compress2(a, data + 64, b, data + 64 + 64 * n, n);
    gw_engine_portable.compress(c, data + 64, n);
    gw_engine_portable.compress(d, data + 64 + 64 * n, n);
    MUST(!memcmp(a, c, 32) && !memcmp(b, d, 32));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096)
        return 0;
    choose_engine(size ? data[0] : 0);
    whole_message(gw_engine_now(), data, size);
    any_state(gw_engine_now(), data, size);
    return 0;
}
