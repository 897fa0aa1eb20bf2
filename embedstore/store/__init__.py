"""The disk: items, spaces, commits. FORMAT.md beside this file is the format's promise."""

from embedstore.store.items import Items
from embedstore.store.reader import StoreReader, path_of
from embedstore.store.space import Space
from embedstore.store.store import Store
from embedstore.store.view import View

__all__ = ["Items", "Space", "Store", "StoreReader", "View", "path_of"]
