"""A work with the code that it needs, as one archive: what belongs to it, what stays out, packed and unpacked."""
