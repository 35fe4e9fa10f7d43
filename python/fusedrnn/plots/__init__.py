"""Pictures as PNG and SVG files, by matplotlib (extra ``train``), without a window."""
