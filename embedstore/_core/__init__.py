"""What every wing stands on: files, digests, types, values, splits. Nothing here knows a store, an encoder or a head."""
