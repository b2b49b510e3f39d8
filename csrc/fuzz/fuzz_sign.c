/* Target functions: gw_sign gw_table_add gw_table_share gw_table_derive gw_table_remove gw_table_reserve gw_verify
 *
 * The input is a program: it files, shares, derives and removes keys and signs batches. A model beside the table knows
 * every raw key; each token is held to the oracle's, and each verifies under its own key. */
#include "fuzz.h"

enum { MODEL = 64, STEPS = 40 };

typedef struct {
    uint8_t raw[64];
    size_t raw_len;
    char audience[GW_AUDIENCE_MAX + 1], policy[16];
    uint32_t handle;
    int live;
} device;

static device *devices;
static size_t known;

static void take_audience(input *in, device *d) {
    size_t len = take_number(in, 1), seed = take(in);
    if (seed == 255)
        len = GW_AUDIENCE_MAX - len;
    for (size_t i = 0; i < len; i++)
        d->audience[i] = "abcdefghij-._~%"[(i * 7 + seed) % 15];
    d->audience[len] = 0;
    size_t policy_len = take(in) % sizeof d->policy;
    memset(d->policy, 'a' + (int)(seed % 26), policy_len);
    d->policy[policy_len] = 0;
}

static device *pick(input *in) {
    device *d = known ? &devices[take(in) % known] : NULL;
    return d && d->live ? d : NULL;
}

static void filed(gw_table *table, device *d, int rc) {
    d->live = rc == GW_OK;
    if (rc == GW_ERR_FULL)
        MUST(gw_table_reserve(table, gw_table_capacity(table) + 3) == GW_OK);
    else
        MUST(rc == GW_OK);
    known += rc == GW_OK;
}

static void add(gw_table *table, input *in, device *d) {
    char text[96];
    d->raw_len = GW_KEY_MIN + take(in) % (GW_KEY_MAX - GW_KEY_MIN + 1);
    for (size_t i = 0; i < d->raw_len; i++)
        d->raw[i] = (uint8_t)(take(in) + i);
    take_audience(in, d);
    oracle_base64(d->raw, d->raw_len, text);
    filed(table, d,
          gw_table_add(table, (const uint8_t *)text, strlen(text), d->audience, strlen(d->audience), d->policy,
                       strlen(d->policy), &d->handle));
}

static void make_from(gw_table *table, input *in, device *d, const device *from, int derive) {
    take_audience(in, d);
    if (derive) {
        uint8_t id[16];
        size_t len = 1 + take(in) % sizeof id;
        for (size_t i = 0; i < len; i++)
            id[i] = take(in);
        oracle_hmac(from->raw, from->raw_len, id, len, d->raw);
        d->raw_len = 32;
        filed(table, d,
              gw_table_derive(table, from->handle, (const char *)id, len, d->audience, strlen(d->audience), d->policy,
                              strlen(d->policy), &d->handle));
    } else {
        memcpy(d->raw, from->raw, sizeof d->raw);
        d->raw_len = from->raw_len;
        filed(table, d,
              gw_table_share(table, from->handle, d->audience, strlen(d->audience), d->policy, strlen(d->policy),
                             &d->handle));
    }
}

static void sign(const gw_table *table, input *in) {
    size_t count = take(in) % 40, failed, bad = count;
    uint64_t expiry = take_number(in, 1 + take(in) % 8);
    uint32_t handles[40], offsets[41];
    const device *who[40];
    for (size_t i = 0; i < count; i++) {
        const device *d = known ? &devices[take(in) % known] : NULL;
        who[i] = d;
        handles[i] = d ? d->handle : 12345;
        if (bad == count && (!d || !d->live || !d->audience[0]))
            bad = i;
    }
    size_t room = gw_table_arena(table, count);
    char *out = malloc(room);
    MUST(out);
    int rc = gw_sign(table, handles, count, expiry, out, room, offsets, &failed);
    MUST(rc == (bad < count ? GW_ERR_HANDLE : GW_OK));
    MUST(rc == GW_OK || failed == bad);
    for (size_t i = 0; rc == GW_OK && i < count; i++) {
        char want[GW_TOKEN_MAX];
        gw_claims claims;
        size_t len = oracle_token(who[i]->raw, who[i]->raw_len, who[i]->audience, who[i]->policy, expiry, want,
                                  sizeof want);
        MUST(offsets[i + 1] - offsets[i] == len + 1 && memcmp(out + offsets[i], want, len) == 0);
        rc = gw_verify(table, handles[i], out + offsets[i], len, &claims);
        MUST(expiry > INT64_MAX ? rc == GW_ERR_TOKEN_EXPIRY : rc == GW_OK && claims.authentic && claims.expiry == expiry);
        rc = GW_OK;
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    int rc;
    choose_engine(take(&in));
    devices = calloc(MODEL, sizeof *devices);
    known = 0;
    gw_table *table = gw_table_new(1 + take(&in) % 4u, &rc);
    MUST(devices && table);
    for (int step = 0; step < STEPS && in.left; step++) {
        unsigned verb = take(&in) % 6;
        device *from = verb >= 1 && verb <= 3 ? pick(&in) : NULL;
        if (verb == 0 && known < MODEL)
            add(table, &in, &devices[known]);
        else if ((verb == 1 || verb == 2) && from && known < MODEL)
            make_from(table, &in, &devices[known], from, verb == 2);
        else if (verb == 3 && from) {
            MUST(gw_table_remove(table, from->handle) == GW_OK);
            from->live = 0;
        } else if (verb >= 4)
            sign(table, &in);
    }
    gw_table_free(table);
    free(devices);
    return 0;
}
