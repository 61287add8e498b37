"""Charts, graphs and attention maps, and pages that show attention."""
