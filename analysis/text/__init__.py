"""Sentences, tables and notes about a study, in English and Chinese."""
