"""The guides; `make docs` builds them as a site, to the folder `site`."""
