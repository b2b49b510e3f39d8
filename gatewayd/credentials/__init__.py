"""Where keys come from, as bytes that can be wiped."""
