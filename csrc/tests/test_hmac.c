/* HMAC from midstates: RFC 4231, every key length, every message length around the blocks. */
#include "check.h"

typedef struct {
    const char *section;
    const char *key;
    const char *data;
    const char *mac;
} vector;

#define AA20 "\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa"
#define AA131 AA20 AA20 AA20 AA20 AA20 AA20 "\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa"
#define REP10(x) x x x x x x x x x x

static const vector rfc4231[] = {
    {"4.2", "\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", "Hi There",
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    {"4.3", "Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
    {"4.4", AA20, REP10("\xdd\xdd\xdd\xdd\xdd"), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
    {"4.5", "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19",
     REP10("\xcd\xcd\xcd\xcd\xcd"), "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
    {"4.6", "\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c",
     "Test With Truncation", "a3b6167473100ee06e0c796c2955552b"},
    {"4.7", AA131, "Test Using Larger Than Block-Size Key - Hash Key First",
     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
    {"4.8", AA131,
     "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed "
     "before being used by the HMAC algorithm.",
     "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
};

/* A key longer than a block is hashed first (RFC 2104 section 2). IoT Hub has none such; the test does the hashing. */
static void answer(const gw_engine *engine, const uint8_t *raw, size_t raw_len, const uint8_t *data, size_t len,
                   uint8_t mac[32]) {
    gw_key key;
    uint8_t hashed[32];
    if (raw_len > 64) {
        oracle_sha256(raw, raw_len, hashed);
        raw = hashed;
        raw_len = sizeof hashed;
    }
    gw_key_init(engine, &key, raw, raw_len);
    gw_hmac(engine, &key, data, len, mac);
}

static void published(const gw_engine *engine) {
    for (size_t i = 0; i < sizeof rfc4231 / sizeof rfc4231[0]; i++) {
        const vector *v = &rfc4231[i];
        uint8_t mac[32];
        char hex[65];
        answer(engine, (const uint8_t *)v->key, strlen(v->key), (const uint8_t *)v->data, strlen(v->data), mac);
        for (size_t j = 0; j < 32; j++)
            sprintf(hex + 2 * j, "%02x", mac[j]);
        CHECK(strncmp(hex, v->mac, strlen(v->mac)) == 0);
    }
}

static void lengths(const gw_engine *engine) {
    static const size_t key_lengths[] = {0, 1, 15, 16, 31, 32, 33, 63, 64};
    uint8_t key[64], data[300], got[32], want[32];
    for (size_t k = 0; k < sizeof key_lengths / sizeof key_lengths[0]; k++) {
        chance_bytes(key, sizeof key);
        cycle_bytes(data, sizeof data);
        for (size_t len = 0; len <= sizeof data; len++) {
            answer(engine, key, key_lengths[k], data, len, got);
            oracle_hmac(key, key_lengths[k], data, len, want);
            CHECK(memcmp(got, want, 32) == 0);
        }
    }
}

static void all(const gw_engine *engine) {
    published(engine);
    lengths(engine);
}

int main(void) {
    each_engine(all);
    return check_report("hmac");
}
