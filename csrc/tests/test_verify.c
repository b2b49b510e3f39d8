/* Reading tokens: the SDKs' forms, every way to break the grammar, every bit of the MAC. */
#include "check.h"

static const uint8_t raw[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static gw_table *table;
static uint32_t handle;

static int verdict(const char *token, gw_claims *claims) {
    int rc = gw_verify(table, handle, token, strlen(token), claims);
    return rc == GW_OK ? (int)claims->authentic : rc;
}

static int says(const char *token) {
    gw_claims claims;
    return verdict(token, &claims);
}

#define SAS "SharedAccessSignature "
#define SR "sr=myhub.azure-devices.net%2Fdevices%2Fdev-01"
#define SIG "sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%3D"
#define SE "se=1767225600"
#define C_FORM "sr=myhub.azure-devices.net/devices/dev-01"
#define C_SIG "sig=GG5rq7RwOlJU1X4axATa0jdC9D8Gh2NlmTaHIrCRo9I"

static void forms(void) {
    gw_claims claims;
    CHECK(verdict(SAS SR "&" SIG "&" SE, &claims) == 1);
    CHECK(claims.expiry == 1767225600 && claims.resource_offset == 25 && claims.resource_len == strlen(SR) - 3);
    CHECK(claims.policy_len == 0 && claims.policy_offset == 0);
    CHECK(says(SAS SIG "&" SE "&" SR) == 1);
    CHECK(says(SAS SE "&" SR "&" SIG) == 1);
    CHECK(says(SAS C_FORM "&" C_SIG "%3d&" SE) == 1); /* lower-case hex */
    CHECK(says(SAS C_FORM "&" C_SIG "=&" SE) == 1);   /* not encoded at all */
    CHECK(verdict(SAS SR "&" SIG "&skn=device&" SE, &claims) == 1);
    CHECK(claims.policy_len == 6 && claims.policy_offset == strlen(SAS SR "&" SIG "&skn="));
    CHECK(says(SAS C_FORM "&" SIG "&" SE) == 0); /* a MAC over another spelling of the resource */
    CHECK(says(SAS SR "&" SIG "&se=1767225601") == 0);
    CHECK(says(SAS SR "&" SIG "&se=01767225600") == 0); /* the same number, other text */
}

static void grammar(void) {
    CHECK(says("") == GW_ERR_TOKEN_SCHEME);
    CHECK(says("SharedAccessSignature") == GW_ERR_TOKEN_SCHEME);
    CHECK(says("sharedaccesssignature " SR "&" SIG "&" SE) == GW_ERR_TOKEN_SCHEME);
    CHECK(says(" " SAS SR "&" SIG "&" SE) == GW_ERR_TOKEN_SCHEME);
    CHECK(says(SAS) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SR "&" SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&" SE "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&" SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&" SE "&skn=a&skn=b") == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&" SE "&x=1") == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&" SE "&") == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&&" SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&se=") == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&" SE "&skn=") == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS "SR=x&" SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS " " SR "&" SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS "sr=a\nb&" SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS "sr=\xc3\xa4&" SIG "&" SE) == GW_ERR_TOKEN_FIELD);
    CHECK(says(SAS SR "&" SIG "&se=-1") == GW_ERR_TOKEN_EXPIRY);
    CHECK(says(SAS SR "&" SIG "&se=1.5") == GW_ERR_TOKEN_EXPIRY);
    CHECK(says(SAS SR "&" SIG "&se=0x10") == GW_ERR_TOKEN_EXPIRY);
    CHECK(says(SAS SR "&" SIG "&se=9223372036854775807") == 0);
    CHECK(says(SAS SR "&" SIG "&se=9223372036854775808") == GW_ERR_TOKEN_EXPIRY);
    CHECK(says(SAS SR "&" SIG "&se=00000000000000000001") == GW_ERR_TOKEN_EXPIRY);
    CHECK(says(SAS SR "&sig=AAAA&" SE) == GW_ERR_TOKEN_MAC);
    CHECK(says(SAS SR "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE&" SE) == GW_ERR_TOKEN_MAC);
    CHECK(says(SAS SR "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%3&" SE) == GW_ERR_TOKEN_MAC);
    CHECK(says(SAS SR "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%3G&" SE) == GW_ERR_TOKEN_MAC);
    CHECK(says(SAS SR "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%&" SE) == GW_ERR_TOKEN_MAC);
    CHECK(says(SAS SR "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%253D&" SE) == GW_ERR_TOKEN_MAC);
    CHECK(says(SAS SR "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%3DA&" SE) == GW_ERR_TOKEN_MAC);
    CHECK(says(SAS SR "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7Mm*%3D&" SE) == GW_ERR_TOKEN_MAC);
}

/* A token cut anywhere is an error or not authentic; no byte behind its end is read (ASan watches the heap copy). */
static void every_cut(void) {
    const char *token = SAS SR "&" SIG "&" SE;
    for (size_t len = 0; len < strlen(token); len++) {
        char *cut = malloc(len ? len : 1);
        gw_claims claims;
        if (!cut)
            abort();
        memcpy(cut, token, len);
        CHECK(gw_verify(table, handle, cut, len, &claims) != GW_OK || !claims.authentic);
        CHECK(claims.authentic == 0);
        free(cut);
    }
}

/* One wrong bit in any of the MAC's 256 is a wrong MAC. */
static void every_bit(const gw_engine *engine) {
    (void)engine;
    for (int bit = -1; bit < 256; bit++) {
        uint8_t mac[32];
        char text[48], token[256];
        const char *message = "a%2Fb\n7";
        oracle_hmac(raw, sizeof raw, (const uint8_t *)message, strlen(message), mac);
        if (bit >= 0)
            mac[bit / 8] ^= (uint8_t)(1 << bit % 8);
        oracle_base64(mac, sizeof mac, text);
        snprintf(token, sizeof token, SAS "sr=a%%2Fb&sig=%s&se=7", text);
        CHECK(says(token) == (bit < 0));
    }
}

/* Long resources: one byte more than any token may have is refused, the longest is read. */
static void lengths(void) {
    static char token[GW_TOKEN_MAX + 2];
    gw_claims claims;
    const char *rest = "&" SIG "&" SE;
    size_t prefix_len = strlen(SAS "sr=");
    memcpy(token, SAS "sr=", prefix_len);
    memset(token + prefix_len, 'a', sizeof token - prefix_len);
    memcpy(token + GW_TOKEN_MAX - strlen(rest), rest, strlen(rest));
    CHECK(gw_verify(table, handle, token, GW_TOKEN_MAX, &claims) == GW_OK && !claims.authentic);
    CHECK(gw_verify(table, handle, token, GW_TOKEN_MAX + 1, &claims) == GW_ERR_TOKEN_LENGTH);
    CHECK(gw_verify(table, 99, token, GW_TOKEN_MAX, &claims) == GW_ERR_HANDLE);
}

static void all_codes_have_a_sentence(void) {
    for (int code = GW_ERR_TOKEN_LENGTH; code <= GW_OK; code++)
        CHECK(strcmp(gw_error_text(code), gw_error_text(1)) != 0);
}

int main(void) {
    CHECK(gw_init() == GW_OK);
    table = table_with(raw, sizeof raw, "a", "", &handle);
    forms();
    grammar();
    every_cut();
    lengths();
    all_codes_have_a_sentence();
    each_engine(every_bit);
    gw_table_free(table);
    return check_report("verify");
}
