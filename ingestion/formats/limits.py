"""What a file can force on us at most: sizes in bytes, counts of columns and levels."""

BLOCK_BYTES = 4 * 1024 * 1024
BATCH_ROWS_MAX = 100_000
BATCH_CELLS_MAX = 5_000_000
ROW_BYTES_MAX = 1024 * 1024
FIELD_BYTES_MAX = 256 * 1024
COLUMNS_MAX = 1000
DEPTH_MAX = 32
TABLES_MAX = 1000
RAW_TEXT_MAX = 4096
# Compressed files: how much they may hold, how much more than themselves once it is past RATIO_FREE_BYTES, and what
# unpacking may take of the memory.
UNPACKED_BYTES_MAX = 1024**4
UNPACKED_RATIO_MAX = 500
RATIO_FREE_BYTES = 256 * 1024 * 1024
UNPACKING_MEMORY_BYTES = 128 * 1024 * 1024
ZIP_DIRECTORY_BYTES_MAX = 1024 * 1024
LIST_MEMBERS_MAX = 100
