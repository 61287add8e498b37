"""Study of how much data architectures need: each is trained at several training-set sizes and seeds."""
