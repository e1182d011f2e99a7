"""Images: opened, made of one size, and augmented on the device."""
