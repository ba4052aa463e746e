"""One room for each API: endpoints, prefix, form of errors, limit of bodies, need of a key."""
