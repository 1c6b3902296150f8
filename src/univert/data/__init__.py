"""Catalogues: reading, checking, splitting, decoding, sampling."""
