"""PNG, JPEG and TIFF, by Pillow, and what guards it."""
