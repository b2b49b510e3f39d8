/* oracle.h - the same answers by other means: slow, plain, and sharing no line with the signer.
 *
 * Constants from the roots they are defined by, the whole schedule written out, HMAC as RFC 2104 words it, base64 by
 * table, escapes by printf. test_oracle.c holds it to published answers first, because the rest is held to it. */
#ifndef GW_ORACLE_H
#define GW_ORACLE_H

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline uint32_t oracle_fraction(double x) {
    return (uint32_t)((x - floor(x)) * 4294967296.0);
}

static inline void oracle_constants(uint32_t k[64], uint32_t iv[8]) {
    int found = 0;
    for (int n = 2; found < 64; n++) {
        int prime = 1;
        for (int d = 2; d * d <= n; d++)
            prime = prime && n % d != 0;
        if (!prime)
            continue;
        k[found] = oracle_fraction(cbrt(n));
        if (found < 8)
            iv[found] = oracle_fraction(sqrt(n));
        found++;
    }
}

static inline uint32_t oracle_turn(uint32_t x, int n) {
    return (uint32_t)((((uint64_t)x << 32) | x) >> n);
}

/* FIPS 180-4 section 6.2.2, with its letters. */
static inline void oracle_sha256(const uint8_t *message, size_t len, uint8_t digest[32]) {
    static uint32_t k[64], iv[8];
    if (!k[0])
        oracle_constants(k, iv);
    uint32_t hash[8];
    memcpy(hash, iv, sizeof hash);
    size_t padded = (len + 9 + 63) / 64 * 64;
    uint8_t *m = calloc(1, padded);
    if (!m)
        abort();
    if (len)
        memcpy(m, message, len);
    m[len] = 0x80;
    for (int i = 0; i < 8; i++)
        m[padded - 1 - (size_t)i] = (uint8_t)(((uint64_t)len * 8) >> (8 * i));
    for (size_t at = 0; at < padded; at += 64) {
        uint32_t w[64], v[8];
        for (int t = 0; t < 64; t++) {
            if (t < 16) {
                w[t] = 0;
                for (int i = 0; i < 4; i++)
                    w[t] = w[t] * 256 + m[at + 4 * (size_t)t + (size_t)i];
            } else {
                uint32_t x = w[t - 15], y = w[t - 2];
                w[t] = w[t - 16] + w[t - 7] + (oracle_turn(x, 7) ^ oracle_turn(x, 18) ^ x >> 3) +
                       (oracle_turn(y, 17) ^ oracle_turn(y, 19) ^ y >> 10);
            }
        }
        memcpy(v, hash, sizeof v);
        for (int t = 0; t < 64; t++) {
            uint32_t sum1 = oracle_turn(v[4], 6) ^ oracle_turn(v[4], 11) ^ oracle_turn(v[4], 25);
            uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
            uint32_t t1 = v[7] + sum1 + choice + k[t] + w[t];
            uint32_t sum0 = oracle_turn(v[0], 2) ^ oracle_turn(v[0], 13) ^ oracle_turn(v[0], 22);
            uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            memmove(v + 1, v, 7 * sizeof v[0]);
            v[4] += t1;
            v[0] = t1 + sum0 + majority;
        }
        for (int i = 0; i < 8; i++)
            hash[i] += v[i];
    }
    free(m);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(hash[i / 4] >> (24 - 8 * (i % 4)));
}

static inline void oracle_hmac(const uint8_t *key, size_t key_len, const uint8_t *message, size_t len, uint8_t mac[32]) {
    uint8_t k[64] = {0};
    if (key_len > 64)
        oracle_sha256(key, key_len, k);
    else if (key_len)
        memcpy(k, key, key_len);
    uint8_t *inside = malloc(64 + len), outside[96];
    if (!inside)
        abort();
    for (int i = 0; i < 64; i++) {
        inside[i] = k[i] ^ 0x36;
        outside[i] = k[i] ^ 0x5c;
    }
    if (len)
        memcpy(inside + 64, message, len);
    oracle_sha256(inside, 64 + len, outside + 64);
    free(inside);
    oracle_sha256(outside, sizeof outside, mac);
}

static const char oracle_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Writes a terminator. `out` holds 4 * ((len + 2) / 3) + 1. */
static inline void oracle_base64(const uint8_t *bytes, size_t len, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        size_t have = len - i < 3 ? len - i : 3;
        unsigned triple = (unsigned)bytes[i] << 16;
        if (have > 1)
            triple |= (unsigned)bytes[i + 1] << 8;
        if (have > 2)
            triple |= bytes[i + 2];
        for (size_t c = 0; c < 4; c++)
            out[n++] = c <= have ? oracle_alphabet[triple >> (18 - 6 * c) & 63] : '=';
    }
    out[n] = 0;
}

/* -1 when the text is not padded base64; else the number of bytes. Tail bits are ignored. */
static inline int oracle_unbase64(const uint8_t *text, size_t len, uint8_t *out) {
    int n = 0;
    size_t bits = 0, chars = len;
    unsigned value = 0;
    if (len == 0 || len % 4)
        return -1;
    for (int pad = 0; pad < 2 && text[chars - 1] == '='; pad++)
        chars--;
    for (size_t i = 0; i < chars; i++) {
        const char *at = text[i] ? strchr(oracle_alphabet, text[i]) : NULL;
        if (!at)
            return -1;
        value = value << 6 | (unsigned)(at - oracle_alphabet);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (uint8_t)(value >> bits);
        }
    }
    return n;
}

/* The token azure-iot-device would make, terminated; the audience is encoded already. Returns its length. */
static inline size_t oracle_token(const uint8_t *key, size_t key_len, const char *audience, const char *policy,
                                  uint64_t expiry, char *out, size_t size) {
    char *message = malloc(strlen(audience) + 32), sig[64], escaped[160];
    uint8_t mac[32];
    if (!message)
        abort();
    sprintf(message, "%s\n%" PRIu64, audience, expiry);
    oracle_hmac(key, key_len, (const uint8_t *)message, strlen(message), mac);
    free(message);
    oracle_base64(mac, sizeof mac, sig);
    size_t n = 0;
    for (const char *p = sig; *p; p++)
        n += (size_t)sprintf(escaped + n, strchr("+/=", *p) ? "%%%02X" : "%c", (unsigned char)*p);
    return (size_t)snprintf(out, size, "SharedAccessSignature sr=%s&sig=%s&se=%" PRIu64 "%s%s", audience, escaped, expiry,
                            *policy ? "&skn=" : "", policy);
}

#endif
