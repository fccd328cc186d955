"""Makes the data that omni-tiny learns from: speech, pictures and videos of packages whose licences allow it."""
