"""Charts, graphs, attention maps and the pages that are made of them."""
