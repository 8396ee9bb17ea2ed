"""Readers: from a file of any known format to batches of text columns, with bounded memory.

A reader knows how a format is written and nothing about what its columns mean. Every row of the file leaves as a row of a
batch or as a `Reject`; none is dropped.
"""
