"""From files to sets of images: layouts, decoding, caches, checks."""
