"""Published models: loading without torch, and exporting."""
