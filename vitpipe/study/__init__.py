"""How much data an architecture needs: the same training of several, at several training-set sizes and seeds."""
