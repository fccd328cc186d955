"""The networks: pure functions of parameters and arrays. No files, no text, no clocks."""
