"""What goes over the wire: requests checked by pydantic, answers made from the records of `storage.domain`."""
