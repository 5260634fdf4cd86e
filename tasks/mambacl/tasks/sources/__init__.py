"""Where images come from: one module a kind of source. Each gives a listing, which says where the bytes of every image are."""
