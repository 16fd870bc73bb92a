"""Feature stores: reader, writer, manifest, and Zarr on disk."""
