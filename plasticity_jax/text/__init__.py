"""Text: vocabularies, BLEU, decoding."""
