"""Image files as arrays: found under any name, decoded, read as a whole or in parts."""
