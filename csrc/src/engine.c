/* engine.c - which engine signs: chosen once, after known answers. See gw_sas.h. */
#include <stdatomic.h>
#include <string.h>

#include "internal.h"

/* Fastest first; the last is always available. */
static const gw_engine *const engines[] = {&gw_engine_shani, &gw_engine_armv8, &gw_engine_portable};
enum { ENGINES = sizeof engines / sizeof engines[0] };

static _Atomic(const gw_engine *) chosen;

const gw_engine *gw_engine_now(void) {
    return atomic_load_explicit(&chosen, memory_order_acquire);
}

/* RFC 4231 section 4.3 (a key shorter than a block) and 4.4 (data and key together longer than one block). */
static const struct {
    const char *key, *data;
    uint8_t mac[SHA_DIGEST];
} answers[] = {
    {"Jefe",
     "what do ya want for nothing?",
     {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7,
      0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43}},
    {"\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa",
     "\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd"
     "\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd",
     {0x77, 0x3e, 0xa9, 0x1e, 0x36, 0x80, 0x0e, 0x46, 0x85, 0x4d, 0xb8, 0xeb, 0xd0, 0x91, 0x81, 0xa7,
      0x29, 0x59, 0x09, 0x8b, 0x3e, 0xf8, 0xc1, 0x22, 0xd9, 0x63, 0x55, 0x14, 0xce, 0xd5, 0x65, 0xfe}},
};

/* The examples of two blocks in FIPS 180-4's companion (448 and 896 bits), with their digests as words. */
static const struct {
    const char *message;
    uint32_t digest[8];
} two_blocks[2] = {
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     {0x248d6a61, 0xd20638b8, 0xe5c02693, 0x0c3e6039,
      0xa33ce459, 0x64ff2167, 0xf6ecedd4, 0x19db06c1}},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmno"
     "ijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
     {0xcf5b16a7, 0x78af8380, 0x036ce59e, 0x7b049237,
      0x0b249b11, 0xe8f07a51, 0xafac4503, 0x7afee9d1}},
};

/* Both messages side by side, and each alone: a lane that leaks into the other or is taken twice shows,
 * and so does a second block that does not follow from the first. */
static int blocks_are_right(const gw_engine *engine) {
    uint8_t block[2][2 * SHA_BLOCK] = {{0}};
    uint32_t state[4][8];
    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(two_blocks[i].message);
        memcpy(block[i], two_blocks[i].message, len);
        block[i][len] = 0x80;
        gw_store_be64(block[i] + sizeof block[i] - 8, len * 8);
    }
    for (size_t i = 0; i < 4; i++)
        memcpy(state[i], gw_sha256_iv, sizeof state[i]);
    engine->compress2(state[0], block[0], state[1], block[1], 2);
    engine->compress(state[2], block[0], 2);
    engine->compress(state[3], block[1], 2);
    int right = 1;
    for (size_t i = 0; i < 4; i++)
        right &= memcmp(state[i], two_blocks[i % 2].digest, sizeof state[i]) == 0;
    return right;
}

static int base64_is_right(const gw_engine *engine) {
    /* Both ends of every range of the alphabet, escapes side by side and at the first place. */
    static const uint32_t digest[8] = {0xfbf0196b, 0x3d3dffff, 0xbe0420d8, 0x5d66dc77,
                                       0x2c70d76d, 0xf8e7aefc, 0xf74fbefb, 0xffff8231};
    static const char text[] = "+/AZaz09//++BCDYXWbcdyxw1234567890+++///gjE";
    char out[48];
    uint64_t escapes = engine->base64(out, digest);
    return memcmp(out, text, SIG_CHARS - 1) == 0 && out[SIG_CHARS - 1] == '=' && escapes == 0xfc00000f03;
}

int gw_engine_is_right(const gw_engine *engine) {
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        gw_key key;
        uint8_t mac[SHA_DIGEST];
        gw_key_init(engine, &key, (const uint8_t *)answers[i].key, strlen(answers[i].key));
        gw_hmac(engine, &key, (const uint8_t *)answers[i].data, strlen(answers[i].data), mac);
        if (memcmp(mac, answers[i].mac, sizeof mac) != 0)
            return 0;
    }
    return blocks_are_right(engine) && base64_is_right(engine);
}

static int choose(const gw_engine *engine) {
    if (!gw_engine_is_right(engine))
        return GW_ERR_SELFTEST;
    atomic_store_explicit(&chosen, engine, memory_order_release);
    return GW_OK;
}

int gw_init(void) {
    for (size_t i = 0; i < ENGINES; i++)
        if (engines[i]->available())
            return choose(engines[i]);
    return GW_ERR_ENGINE;
}

const char *gw_engine_name(void) {
    const gw_engine *engine = gw_engine_now();
    return engine ? engine->name : "";
}

const char *gw_engine_list(uint32_t i) {
    return i < ENGINES ? engines[i]->name : NULL;
}

static const gw_engine *find(const char *name) {
    for (size_t i = 0; i < ENGINES; i++)
        if (strcmp(engines[i]->name, name) == 0 && engines[i]->available())
            return engines[i];
    return NULL;
}

int gw_engine_available(const char *name) {
    return find(name) != NULL;
}

int gw_engine_force_for_testing(const char *name) {
    const gw_engine *engine = find(name);
    return engine ? choose(engine) : GW_ERR_ENGINE;
}

const char *gw_error_text(int code) {
    switch (code) {
    case GW_OK: return "no error";
    case GW_ERR_ARGUMENT: return "a length or value is out of range";
    case GW_ERR_MEMORY: return "the system gave no memory";
    case GW_ERR_KEY_TEXT: return "not padded base64";
    case GW_ERR_KEY_LENGTH: return "not 16 to 64 bytes after decoding";
    case GW_ERR_HANDLE: return "no key to sign with under this index";
    case GW_ERR_FULL: return "the key table is full";
    case GW_ERR_SPACE: return "the output buffer is too small";
    case GW_ERR_FORKED: return "the keys belong to the process that loaded them, not to its child";
    case GW_ERR_ENGINE: return "this machine has no such signing engine";
    case GW_ERR_SELFTEST: return "the signing engine failed its known answers";
    case GW_ERR_TOKEN_SCHEME: return "not a SharedAccessSignature";
    case GW_ERR_TOKEN_FIELD: return "a field is unknown, repeated, missing, empty or not plain ASCII";
    case GW_ERR_TOKEN_EXPIRY: return "se is not a decimal number of seconds";
    case GW_ERR_TOKEN_MAC: return "sig is not 32 bytes of base64";
    case GW_ERR_TOKEN_LENGTH: return "longer than a token can be";
    default: return "unknown error";
    }
}
