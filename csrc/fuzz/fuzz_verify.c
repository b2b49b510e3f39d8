/* Target functions: gw_verify
 *
 * The input is a token. A plain second reader, written on C strings, says whether it has the grammar of one and what
 * its MAC should be; gw_verify must agree on both and must point into the token. */
#include "fuzz.h"

static const uint8_t raw[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

typedef struct {
    char *sr, *sig, *se, *skn;
} pieces;

/* Cuts `text` up in place. */
static int read_fields(char *text, pieces *p) {
    if (strncmp(text, "SharedAccessSignature ", 22) != 0)
        return 0;
    for (char *next = text + 22; next;) {
        char *at = next, **where;
        if ((next = strchr(at, '&')))
            *next++ = 0;
        char *equals = strchr(at, '=');
        if (!equals || !equals[1])
            return 0;
        for (const char *c = at; *c; c++)
            if (*c <= ' ' || *c > '~')
                return 0;
        *equals = 0;
        where = !strcmp(at, "sr") ? &p->sr : !strcmp(at, "sig") ? &p->sig : !strcmp(at, "se") ? &p->se :
                !strcmp(at, "skn") ? &p->skn : NULL;
        if (!where || *where)
            return 0;
        *where = equals + 1;
    }
    return p->sr && p->sig && p->se;
}

static int read_expiry(const char *se, uint64_t *expiry) {
    if (strlen(se) > 19 || strspn(se, "0123456789") != strlen(se))
        return 0;
    *expiry = strtoull(se, NULL, 10);
    return *expiry <= INT64_MAX;
}

/* 1 and the bytes when sig is 32 of them. */
static int read_mac(const char *sig, uint8_t mac[32]) {
    char text[8192];
    uint8_t bytes[8192];
    size_t n = 0;
    for (const char *c = sig; *c; c++) {
        unsigned value = (unsigned char)*c;
        if (*c == '%') {
            char hex[3] = {0};
            if (!c[1] || !c[2] || !strchr("0123456789abcdefABCDEF", c[1]) || !strchr("0123456789abcdefABCDEF", c[2]))
                return 0;
            hex[0] = c[1];
            hex[1] = c[2];
            value = (unsigned)strtoul(hex, NULL, 16);
            c += 2;
        }
        text[n++] = (char)value;
    }
    if (n != 44 || oracle_unbase64((const uint8_t *)text, n, bytes) != 32)
        return 0;
    memcpy(mac, bytes, 32);
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static gw_table *table;
    static uint32_t handle;
    if (!table) {
        char text[64];
        int rc;
        MUST(gw_init() == GW_OK);
        oracle_base64(raw, sizeof raw, text);
        table = gw_table_new(1, &rc);
        MUST(table && gw_table_add(table, (const uint8_t *)text, strlen(text), "a", 1, "", 0, &handle) == GW_OK);
    }
    if (size > 5000)
        return 0;
    choose_engine(size ? data[size / 2] : 0);

    char *text = calloc(1, size + 1);
    pieces p = {0};
    gw_claims claims;
    uint64_t expiry = 0;
    uint8_t claimed[32], mac[32];
    MUST(text);
    if (size)
        memcpy(text, data, size);
    int sound = strlen(text) == size && size <= GW_TOKEN_MAX && read_fields(text, &p) && read_expiry(p.se, &expiry) &&
                read_mac(p.sig, claimed);
    int rc = gw_verify(table, handle, (const char *)data, size, &claims);
    MUST((rc == GW_OK) == sound);
    if (sound) {
        char message[8192];
        int n = snprintf(message, sizeof message, "%s\n%s", p.sr, p.se);
        oracle_hmac(raw, sizeof raw, (const uint8_t *)message, (size_t)n, mac);
        MUST(claims.authentic == (memcmp(mac, claimed, 32) == 0));
        MUST(claims.expiry == expiry);
        MUST(claims.resource_len == strlen(p.sr) && !memcmp(data + claims.resource_offset, p.sr, strlen(p.sr)));
        MUST(claims.policy_len == (p.skn ? strlen(p.skn) : 0));
        MUST(!p.skn || !memcmp(data + claims.policy_offset, p.skn, strlen(p.skn)));
    } else {
        MUST(claims.authentic == 0 && claims.resource_len == 0);
    }
    free(text);
    return 0;
}
