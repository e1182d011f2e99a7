"""Images: decoding, resizing, and augmentation on the device."""
