/* verify.c - reading a token and checking its MAC. See gw_sas.h.
 *
 * The SDKs differ in how they encode sr and in the order of the fields, and each signs what it wrote. So the MAC is
 * taken over sr and se as they stand in the token, and nothing is decoded or brought into another form first. */
#include <string.h>

#include "internal.h"

typedef struct {
    const char *at;
    size_t len; /* 0: not seen yet; an empty field is refused */
} field;

enum { SR, SIG, SE, SKN, FIELDS };
static const struct {
    const char *name;
    size_t len;
} names[FIELDS] = {{"sr=", 3}, {"sig=", 4}, {"se=", 3}, {"skn=", 4}};

/* One "name=value" of `len` bytes, all of them visible ASCII: a newline in sr could make one MAC serve two readings. */
static int take_field(field fields[FIELDS], const char *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (p[i] < '!' || p[i] > '~')
            return GW_ERR_TOKEN_FIELD;
    for (size_t f = 0; f < FIELDS; f++) {
        size_t name = names[f].len;
        if (len <= name || memcmp(p, names[f].name, name) != 0)
            continue;
        if (fields[f].len)
            return GW_ERR_TOKEN_FIELD;
        fields[f].at = p + name;
        fields[f].len = len - name;
        return GW_OK;
    }
    return GW_ERR_TOKEN_FIELD;
}

static int split(field fields[FIELDS], const char *token, size_t len) {
    static const char scheme[] = "SharedAccessSignature ";
    size_t scheme_len = sizeof scheme - 1;
    if (len > GW_TOKEN_MAX)
        return GW_ERR_TOKEN_LENGTH;
    if (len < scheme_len || memcmp(token, scheme, scheme_len) != 0)
        return GW_ERR_TOKEN_SCHEME;
    const char *p = token + scheme_len, *end = token + len;
    for (;;) {
        const char *stop = p < end ? memchr(p, '&', (size_t)(end - p)) : NULL;
        int rc = take_field(fields, p, (size_t)((stop ? stop : end) - p));
        if (rc != GW_OK)
            return rc;
        if (!stop)
            break;
        p = stop + 1;
    }
    return fields[SR].len && fields[SIG].len && fields[SE].len ? GW_OK : GW_ERR_TOKEN_FIELD;
}

/* At most 19 digits, and below 2^63: what every SDK and the hub hold in a signed 64-bit integer. */
static int parse_expiry(const field *f, uint64_t *expiry) {
    uint64_t value = 0;
    if (f->len > 19)
        return GW_ERR_TOKEN_EXPIRY;
    for (size_t i = 0; i < f->len; i++) {
        if (f->at[i] < '0' || f->at[i] > '9')
            return GW_ERR_TOKEN_EXPIRY;
        value = value * 10 + (uint64_t)(f->at[i] - '0');
    }
    if (value > INT64_MAX)
        return GW_ERR_TOKEN_EXPIRY;
    *expiry = value;
    return GW_OK;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX in either case; every other character stands for itself. The claimed MAC came over the wire: it is no secret. */
static int parse_mac(const field *f, uint8_t mac[SHA_DIGEST]) {
    uint8_t text[SIG_CHARS], bytes[BASE64_BYTES];
    size_t n = 0, bytes_len;
    for (size_t i = 0; i < f->len; i++) {
        int c = (unsigned char)f->at[i];
        if (c == '%') {
            if (f->len - i < 3)
                return GW_ERR_TOKEN_MAC;
            int high = hex_digit(f->at[i + 1]), low = hex_digit(f->at[i + 2]);
            if (high < 0 || low < 0)
                return GW_ERR_TOKEN_MAC;
            c = high << 4 | low;
            i += 2;
        }
        if (n == SIG_CHARS)
            return GW_ERR_TOKEN_MAC;
        text[n++] = (uint8_t)c;
    }
    if (gw_base64_decode(bytes, &bytes_len, text, n) != GW_OK || bytes_len != SHA_DIGEST)
        return GW_ERR_TOKEN_MAC;
    memcpy(mac, bytes, SHA_DIGEST);
    return GW_OK;
}

static uint32_t mac_matches(const gw_engine *engine, const gw_key *key, const field *sr, const field *se,
                            const uint8_t claimed[SHA_DIGEST]) {
    uint8_t message[GW_TOKEN_MAX], mac[SHA_DIGEST];
    memcpy(message, sr->at, sr->len);
    message[sr->len] = '\n';
    memcpy(message + sr->len + 1, se->at, se->len);
    gw_hmac(engine, key, message, sr->len + 1 + se->len, mac);
    uint32_t same = ct_equal(mac, claimed, SHA_DIGEST);
    GW_PUBLIC(&same, sizeof same);
    gw_wipe(mac, sizeof mac);
    return same;
}

int gw_verify(const gw_table *table, uint32_t handle, const char *token, size_t token_len, gw_claims *claims) {
    field fields[FIELDS] = {{NULL, 0}};
    uint8_t claimed[SHA_DIGEST];
    uint64_t expiry = 0;
    memset(claims, 0, sizeof *claims);
    const gw_engine *engine = gw_engine_now();
    if (!engine)
        return GW_ERR_ENGINE;
    if (!gw_block_alive(table->block))
        return GW_ERR_FORKED;
    if (!gw_table_slot(table, handle))
        return GW_ERR_HANDLE;
    int rc = split(fields, token, token_len);
    if (rc == GW_OK)
        rc = parse_expiry(&fields[SE], &expiry);
    if (rc == GW_OK)
        rc = parse_mac(&fields[SIG], claimed);
    if (rc != GW_OK)
        return rc;
    claims->expiry = expiry;
    claims->resource_offset = (uint32_t)(fields[SR].at - token);
    claims->resource_len = (uint32_t)fields[SR].len;
    if (fields[SKN].len) {
        claims->policy_offset = (uint32_t)(fields[SKN].at - token);
        claims->policy_len = (uint32_t)fields[SKN].len;
    }
    claims->authentic =
        mac_matches(engine, &table->block->keys[gw_slot_index(handle)], &fields[SR], &fields[SE], claimed);
    return GW_OK;
}
