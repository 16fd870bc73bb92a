"""Image files as arrays: locations, decoding, reading as a whole or in parts."""
