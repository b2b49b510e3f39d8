/* base64.c - decoding key text without a table, a branch or an early exit on what it says. See internal.h. */
#include "internal.h"

/* The six bits of a character; characters outside the alphabet set *bad. Each range adds its value under its mask. */
static uint32_t sextet(uint32_t c, uint32_t *bad) {
    uint32_t upper = ct_within(c, 'A', 'Z');
    uint32_t lower = ct_within(c, 'a', 'z');
    uint32_t digit = ct_within(c, '0', '9');
    uint32_t plus = ct_within(c, '+', '+');
    uint32_t slash = ct_within(c, '/', '/');
    *bad |= ~(upper | lower | digit | plus | slash);
    return (upper & (c - 'A')) | (lower & (c - 'a' + 26u)) | (digit & (c - '0' + 52u)) | (plus & 62u) | (slash & 63u);
}

int gw_base64_decode(uint8_t out[BASE64_BYTES], size_t *out_len, const uint8_t *text, size_t len) {
    *out_len = 0;
    if (len > BASE64_MAX)
        return GW_ERR_KEY_LENGTH;
    if (len == 0 || len % 4 != 0)
        return GW_ERR_KEY_TEXT;

    /* The padding tells the length, and lengths are public. "x=" with no second '=' behind it leaves an '=' in the
     * text, which is outside the alphabet. */
    uint32_t one = ct_within(text[len - 1], '=', '=') & 1u;
    uint32_t two = ct_within(text[len - 2], '=', '=') & one;
    GW_PUBLIC(&one, sizeof one);
    GW_PUBLIC(&two, sizeof two);
    size_t padding = one + two;
    size_t chars = len - padding;

    uint32_t bad = 0;
    for (size_t quad = 0; quad < len / 4; quad++) {
        uint32_t bits = 0;
        for (size_t i = 4 * quad; i < 4 * quad + 4; i++)
            bits = (bits << 6) | (i < chars ? sextet(text[i], &bad) : 0u);
        out[3 * quad] = (uint8_t)(bits >> 16);
        out[3 * quad + 1] = (uint8_t)(bits >> 8);
        out[3 * quad + 2] = (uint8_t)bits;
    }
    bad = ct_is_zero(bad);
    GW_PUBLIC(&bad, sizeof bad); /* that a key is malformed is public; where is not said */
    if (!bad) {
        gw_wipe(out, BASE64_BYTES);
        return GW_ERR_KEY_TEXT;
    }
    *out_len = len / 4 * 3 - padding;
    return GW_OK;
}
