/* Decoding key text: every byte in every place, every padding, every length, and tails with unused bits. */
#include "check.h"

static void same_as_oracle(const uint8_t *text, size_t len) {
    uint8_t got[BASE64_BYTES], want[BASE64_BYTES + 8];
    size_t got_len = 99;
    memset(got, 0xee, sizeof got);
    int rc = gw_base64_decode(got, &got_len, text, len);
    int want_len = oracle_unbase64(text, len, want);
    if (len > BASE64_MAX) {
        CHECK(rc == GW_ERR_KEY_LENGTH && got_len == 0);
    } else if (want_len < 0) {
        CHECK(rc == GW_ERR_KEY_TEXT && got_len == 0);
    } else {
        CHECK(rc == GW_OK && got_len == (size_t)want_len);
        CHECK(memcmp(got, want, (size_t)want_len) == 0);
    }
}

static void every_byte_in_every_place(const char *good) {
    uint8_t text[BASE64_MAX];
    size_t len = strlen(good);
    for (size_t place = 0; place < len; place++)
        for (unsigned c = 0; c < 256; c++) {
            memcpy(text, good, len);
            text[place] = (uint8_t)c;
            same_as_oracle(text, len);
        }
}

static void every_length(void) {
    for (size_t n = 1; n <= 66; n++) {
        uint8_t raw[66];
        char text[96];
        chance_bytes(raw, n);
        oracle_base64(raw, n, text);
        for (size_t len = 0; len <= strlen(text); len++)
            same_as_oracle((const uint8_t *)text, len);
    }
    uint8_t long_text[BASE64_MAX + 4];
    memset(long_text, 'A', sizeof long_text);
    for (size_t len = BASE64_MAX - 4; len <= sizeof long_text; len++)
        same_as_oracle(long_text, len);
}

/* What is decoded is wiped again when a bad character is found behind it. */
static void nothing_is_left_of_a_malformed_key(void) {
    uint8_t out[BASE64_BYTES];
    size_t len;
    memset(out, 0xee, sizeof out);
    CHECK(gw_base64_decode(out, &len, (const uint8_t *)"QUJDREVGR0hJSktMTU5P!UFRU1RVVldY", 32) == GW_ERR_KEY_TEXT);
    for (size_t i = 0; i < sizeof out; i++)
        CHECK(out[i] == 0);
}

int main(void) {
    every_byte_in_every_place("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="); /* one '=' */
    every_byte_in_every_place("AAECAwQFBgcICQoLDA0ODw==");                     /* two */
    every_byte_in_every_place("AAECAwQFBgcICQoLDA0ODxAREhMU");                 /* none */
    every_byte_in_every_place("A===");
    every_byte_in_every_place("====");
    every_length();
    nothing_is_left_of_a_malformed_key();
    return check_report("base64");
}
