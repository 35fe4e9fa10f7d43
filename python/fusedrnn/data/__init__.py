"""Data that tasks read: found or fetched, checked by hash, kept in a cache folder; a user's own files too."""
