"""The author that needs no language model: phrasebooks, or the schema alone."""
